"""Late fusion: several backbones side by side, each on its own share of the channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.backbones.base import Backbone


class FusedBackbone(Backbone):
    """Several backbones side by side, each on its own share of the channels; their feature maps are concatenated.

    Args:
        backbones: with feature maps on the same grids.

    Raises:
        InputError: backbones whose feature maps sit at different places.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        first = backbones[0]
        for backbone in backbones:
            if backbone.grids != first.grids or any(
                backbone.fitting_size(n) != first.fitting_size(n) for n in (1, 64, 65)
            ):
                raise InputError(f"'{first.name}' and '{backbone.name}' have their features at different places")
        super().__init__(
            "+".join(backbone.name for backbone in backbones),
            in_channels=sum(backbone.in_channels for backbone in backbones),
            channels=tuple(map(sum, zip(*(backbone.channels for backbone in backbones), strict=True))),
            grids=first.grids,
            strides=first.strides,
            mean=[value for backbone in backbones for value in backbone.mean],
            std=[value for backbone in backbones for value in backbone.std],
        )
        self.padded = first.padded
        self.backbones = nn.ModuleList(backbones)

    def _set_output_stride(self, value: int) -> None:
        for number in range(len(self.backbones)):
            self._backbone(number).output_stride = value
        self.grids = self._backbone(0).grids

    def _backbone(self, number: int) -> Backbone:
        backbone = self.backbones[number]
        assert isinstance(backbone, Backbone)
        return backbone

    def fitting_size(self, size: int) -> int:
        """That of each backbone."""
        return self._backbone(0).fitting_size(size)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → for each of ``strides`` the backbones' feature maps, concatenated."""
        shares = x.split_with_sizes([self._backbone(n).in_channels for n in range(len(self.backbones))], 1)
        maps = [backbone(share) for backbone, share in zip(self.backbones, shares, strict=True)]
        return [torch.cat(level, 1) for level in zip(*maps, strict=True)]
