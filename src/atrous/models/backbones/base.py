"""The backbone interface: a feature extractor whose feature maps have known strides and grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid
from atrous.models.surgery.output_stride import whole_stride

NATIVE_STRIDE = 32
"""The output stride of a classifier as published, and the raster of image sizes where a network needs one."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""RGB statistics of ImageNet, as fractions of the full range."""


def larger(side: int, other: int) -> int:
    """The larger of two image sides. In an export they are symbols, and ``max`` would settle the choice for all
    sizes.
    """
    return torch.sym_max(side, other)  # type: ignore[return-value]


class Backbone(nn.Module):
    """A feature extractor, as the models of this package use one.

    A subclass passes what it is to this constructor and implements :meth:`forward`. Where its output stride can be
    changed it also implements :meth:`_set_output_stride`, and where it only takes certain image sizes,
    :meth:`fitting_size`.

    Args:
        name: identifies the backbone in config files and messages.
        in_channels: channels of the image.
        channels: channels of each feature map.
        grids: where each feature map sits, from fine to coarse.
        strides: the stride of each feature map as built; those of ``grids`` when left out.
        mean, std: normalisation of the image in units of the full range, one value a channel. Channels beyond those
            given get the average of the given ones.

    Attributes:
        name, in_channels, channels, strides, mean, std: as above.
        grids: where each feature map sits at the current output stride.
        padded: whether the first layer pads so far that logits have to be cropped (the papers' FCN backbones).

    Example:
        >>> import atrous
        >>> backbone = atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=2).backbone
        >>> isinstance(backbone, atrous.Backbone), backbone.output_stride, backbone.strides
        (True, 16, (...))
    """

    padded: bool = False

    def __init__(
        self,
        name: str,
        *,
        in_channels: int,
        channels: Sequence[int],
        grids: Sequence[Grid],
        strides: Sequence[int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.name, self.in_channels = name, in_channels
        self.channels, self.grids = tuple(channels), tuple(grids)
        self.strides = tuple(int(grid.stride) for grid in grids) if strides is None else tuple(strides)
        self.mean, self.std = per_channel(mean, in_channels), per_channel(std, in_channels)

    @property
    def output_stride(self) -> int:
        """The stride of the last feature map; may be set to 4, 8, 16 or 32 at any time where the network allows it."""
        return int(self.grids[-1].stride)

    @output_stride.setter
    def output_stride(self, value: int) -> None:
        if value != self.output_stride:
            self._set_output_stride(whole_stride(value))

    def _set_output_stride(self, value: int) -> None:
        """Change the network to another output stride and update ``grids``.

        Raises:
            InputError: the output stride is fixed, or can't be this one.
        """
        raise InputError(f"backbone '{self.name}' has a fixed output stride of {self.output_stride}, not {value}")

    def set_multi_grid(self, rates: Sequence[int]) -> None:
        """Multiply the atrous rates of the last convolutions (DeepLabv3, arXiv 1706.05587, §3.2.1); no rates leave
        them unchanged.

        Raises:
            InputError: the backbone has no such convolutions.
        """
        if rates:
            raise InputError(f"backbone '{self.name}' does not support multi_grid")

    def feature_at(self, stride: int) -> int:
        """The index of the deepest feature map of a native stride.

        Raises:
            InputError: the network has none.
        """
        found = [i for i, s in enumerate(self.strides) if s == stride]
        if not found:
            raise InputError(f"backbone '{self.name}' has features at strides {self.strides}, none at {stride}")
        return found[-1]

    def fitting_size(self, size: int) -> int:
        """The smallest image side, not below ``size``, that the network takes; images are padded to it."""
        return size

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → a feature map ``(B, C, h, w)`` for each of ``strides``."""
        raise NotImplementedError


def per_channel(values: Sequence[float], count: int) -> tuple[float, ...]:
    """One value for each of ``count`` channels: the given ones, and their average for channels beyond them (for all
    channels, where there are fewer).
    """
    mean = sum(values) / len(values)
    return (mean,) * count if count < len(values) else (*values, *(mean,) * (count - len(values)))
