"""Any plain convolutional network as a backbone: its feature maps are found by tracing its forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from atrous.errors import InputError
from atrous.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, larger
from atrous.models.backbones.convolutional import ConvolutionalBackbone, find_fit
from atrous.models.surgery.convolutionalize import SurgeryError, input_channels
from atrous.models.surgery.features import feature_network
from atrous.models.surgery.trace import skeleton

SIDES: tuple[int, ...] = tuple(2**n for n in range(11))
"""Sides of square images that are tried to find the smallest that a network takes."""


class TracedBackbone(ConvolutionalBackbone):
    """A copy of a convolutional network without what follows its last feature map.

    Its features are the deepest map before each change of stride, or the maps that it returns if it returns several.
    Tensors keep their names.

    Args:
        net: a classifier or feature extractor ``(B, in_channels, H, W)``; it is copied, weights and mode included.
        name: identifies it in messages and, if registered under this name, in model folders; its class by default.
        in_channels: channels of the image; those of its first convolution by default.
        mean, std: what its images are normalised by, in units of the full range; timm's where it is timm's, ImageNet's
            by default.
        output_stride: 4, 8, 16 or 32; its own by default.

    Raises:
        SurgeryError: a forward that can't be traced, or a layer that can't be dilated; the message names it.

    Example:
        >>> backbone = TracedBackbone(torchvision.models.resnet18())
        >>> backbone.strides, backbone.channels
        ((2, 4, 8, 16, 32), (64, 64, 128, 256, 512))
    """

    _smallest = 1

    def __init__(
        self,
        net: nn.Module,
        name: str | None = None,
        *,
        in_channels: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        output_stride: int | None = None,
    ) -> None:
        name, first = name or type(net).__name__, input_channels(net)
        if in_channels not in (None, first):
            raise InputError(
                f"in_channels is {in_channels}, but the first convolution of {name} takes {first} channels"
            )
        features = feature_network(net, first)
        config: Any = getattr(net, "pretrained_cfg", None) or {}
        super().__init__(
            features.net,
            name,
            in_channels=first,
            channels=features.channels,
            strides=features.strides,
            mean=mean or config.get("mean", IMAGENET_MEAN),
            std=std or config.get("std", IMAGENET_STD),
            output_stride=output_stride or features.strides[-1],
            fit=find_fit(features.net, name, first),
        )
        self._smallest = _smallest_side(self.net, first)

    def _update_grids(self) -> None:
        super()._update_grids()
        self._smallest = _smallest_side(self.net, self.in_channels)

    def fitting_size(self, size: int) -> int:
        """The smallest image side, not below ``size``, that the network covers evenly and that leaves a position in
        each map: without padding, convolutions need some pixels.
        """
        return super().fitting_size(larger(size, self._smallest))


def _smallest_side(net: nn.Module, in_channels: int) -> int:
    """The first of ``SIDES`` that a network takes; any where it pads, some pixels where its kernels have to fit in."""
    bare = skeleton(net)
    for side in SIDES:
        with suppress(RuntimeError):
            bare(torch.empty(1, in_channels, side, side, device="meta"))
            return side
    raise SurgeryError(f"{type(net).__name__} takes no image of {SIDES[0]} to {SIDES[-1]} pixels a side")
