"""timm's transformers as backbones, and its other networks that can't be dilated: at their native strides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.grid import Grid
from atrous.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from atrous.models.backbones.weights import timm_network
from atrous.models.surgery.attention import place_maps
from atrous.models.surgery.trace import evaluating, skeleton

ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm's networks are asked to take images of any size: position embeddings are resized, windows padded."""


class TransformerBackbone(Backbone):
    """A timm transformer whose features have the strides it was built with; they can't be changed.

    A hierarchical one (Swin, MaxViT, PVT, EfficientViT, ...) offers the deepest map of each stride. A plain one (ViT,
    DeiT, DINOv2, DINOv3, ...) has one stride, and offers the map of its last block: position *i* of patches of 16 sits
    at pixel 16 *i* + 7.5. Class and register tokens are left out.

    Images are padded at the bottom and right to a multiple of the coarsest stride, or of the size that its windows
    divide (256 for MaxViT's of 8).

    Args:
        name: a timm model name, for example ``swin_tiny_patch4_window7_224`` or ``vit_small_patch14_dinov2``.
        in_channels: channels of the image.
        pretrained: as for :class:`TimmBackbone`.

    Raises:
        InputError: an unknown timm model; one that takes a single size of image, or whose maps can't be placed.
        WeightsNotFoundError: pretrained weights that can't be found.

    Example:
        >>> backbone = TransformerBackbone("vit_tiny_patch16_224")
        >>> backbone.grids
        (Grid(stride=16, offset=7.5),)
    """

    def __init__(self, name: str, *, in_channels: int = 3, pretrained: bool | str | Path = False) -> None:
        net = _network(name, in_channels, pretrained)
        deepest = {info["reduction"]: index for index, info in enumerate(net.feature_info)}
        strides = tuple(sorted(deepest))
        indices = [deepest[stride] for stride in strides]
        net.prune_intermediate_layers(indices, prune_head=True)
        raster, channels, grids = _measure(net, name, in_channels, indices, strides)
        config: Any = net.pretrained_cfg or {}
        super().__init__(
            name,
            in_channels=in_channels,
            channels=channels,
            grids=grids,
            strides=strides,
            mean=config.get("mean", IMAGENET_MEAN),
            std=config.get("std", IMAGENET_STD),
        )
        self.net, self.indices, self.raster = net, indices, raster

    def _set_output_stride(self, value: int) -> None:
        raise InputError(
            f"backbone '{self.name}' stays at its native output stride of {self.output_stride}, it can't be given "
            f"{value}: only a chain of convolutions can be dilated, not attention or parallel branches of several "
            "strides. Leave output_stride out, or take another backbone"
        )

    def fitting_size(self, size: int) -> int:
        """The smallest multiple of ``raster`` that is not below ``size``."""
        return (size + self.raster - 1) // self.raster * self.raster

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → a feature map ``(B, C, h, w)`` for each of ``strides``."""
        return _maps(self.net, x, self.indices)


def _maps(net: Any, images: Tensor, indices: list[int]) -> list[Tensor]:
    maps: list[Tensor] = net.forward_intermediates(
        images, indices=indices, norm=True, output_fmt="NCHW", intermediates_only=True
    )
    return maps


def _network(name: str, in_channels: int, pretrained: bool | str | Path) -> Any:
    for settings in ANY_SIZE:
        try:
            net = timm_network(name, in_channels, pretrained, features_only=False, **settings)
        except TypeError:  # it has no such setting
            continue
        if hasattr(net, "forward_intermediates") and hasattr(net, "feature_info"):
            return net
        break
    raise InputError(f"timm's '{name}' offers no feature maps, so it can't be a backbone")


def _measure(
    net: Any, name: str, in_channels: int, indices: list[int], strides: tuple[int, ...]
) -> tuple[int, list[int], list[Grid]]:
    """The multiple that image sides have to be of, the features' channels, and where they sit."""
    native = int(net.pretrained_cfg.get("input_size", (3, 224, 224))[-1])
    reasons = []
    for raster, sides in ((strides[-1], (5, 7)), (2 * strides[-1], (5, 7)), (native, (1, 2))):
        try:
            grids = _grids(net, in_channels, indices, [side * raster for side in sides])
            if [grid and grid.stride for grid in grids] != list(strides):
                raise InputError(f"its maps can't be placed at sides of {raster}: {grids}")
            with evaluating(net), torch.no_grad():  # without data, a table of positions has no end
                maps = _maps(net, torch.zeros(1, in_channels, raster, native + raster), indices)
        except Exception as error:  # the network's own code may raise anything about a size
            reasons.append(str(error).partition("\n")[0])
        else:
            return raster, [x.shape[1] for x in maps], [grid for grid in grids if grid]
    raise InputError(
        f"backbone '{name}' can't be used for images of any size: {reasons[0]}. swin_tiny_patch4_window7_224, "
        "efficientvit_b0 or vit_small_patch14_dinov2 can"
    )


def _grids(net: Any, in_channels: int, indices: list[int], sides: list[int]) -> list[Grid | None]:
    """Where the features sit, followed without arithmetic."""
    bare: Any = skeleton(net)
    image = torch.empty(1, in_channels, *sides, device="meta")
    return place_maps(bare, lambda: _maps(bare, image, indices), image)
