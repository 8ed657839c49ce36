"""DeepLabv3+'s decoder (Chen et al., ECCV 2018, arXiv 1802.02611, §3.1, §4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid, resample
from atrous.models.layers import conv3x3, conv_bn_relu


class DecoderStep(nn.Module):
    """One refinement of DeepLabv3+'s decoder: project the low-level features, concatenate, convolve."""

    def __init__(
        self,
        in_channels: int,
        low_level_channels: int,
        projected_channels: int,
        out_channels: int,
        convs: int,
        kernel: int,
        separable: bool,
    ) -> None:
        super().__init__()
        self.project = conv_bn_relu(low_level_channels, projected_channels)
        widths = [in_channels + projected_channels, *[out_channels] * convs]
        self.refine = nn.Sequential(
            *(
                conv3x3(a, b, separable=separable) if kernel == 3 else conv_bn_relu(a, b)
                for a, b in itertools.pairwise(widths)
            )
        )

    def forward(self, x: Tensor, x_grid: Grid, low_level: Tensor, low_level_grid: Grid) -> Tensor:
        """Features ``(B, in_channels, h, w)`` and low-level features ``(B, low_level_channels, H, W)`` →
        ``(B, out_channels, H, W)``.
        """
        detail = self.project(low_level)
        x = resample(x, x_grid, low_level_grid, (detail.shape[-2], detail.shape[-1]))
        x = torch.cat([x, detail], 1)
        del detail
        for block in self.refine:  # layer by layer: a call would keep each block's input in memory until its end
            for layer in block if isinstance(block, nn.Sequential) else (block,):
                x = layer(x)
        return x


class DeepLabV3PlusDecoder(nn.Module):
    """DeepLabv3+'s decoder: refines features along low-level ones, once or several times from coarse to fine (arXiv
    1802.02611, §3.1, §4.1, tables 1 and 2).

    Args:
        in_channels: channels of the features, such as ASPP's result.
        low_level_channels: channels of each low-level feature map, coarse to fine.
        projected_channels: to which each low-level feature map is reduced.
        out_channels: channels of the result.
        convs: number of convolutions of each refinement.
        kernel: their kernel size, 1 or 3.
        separable: make its 3×3 convolutions depthwise separable.

    Raises:
        InputError: no convolutions, or another kernel.

    Example:
        >>> decoder = DeepLabV3PlusDecoder(256, [64])
        >>> x, low_level = torch.zeros(1, 256, 33, 33), torch.zeros(1, 64, 129, 129)
        >>> decoder(x, Grid(16, 0), [low_level], [Grid(4, 0)]).shape
        torch.Size([1, 256, 129, 129])
    """

    def __init__(
        self,
        in_channels: int,
        low_level_channels: Sequence[int],
        *,
        projected_channels: int = 48,
        out_channels: int = 256,
        convs: int = 2,
        kernel: int = 3,
        separable: bool = False,
    ) -> None:
        if convs < 1 or kernel not in (1, 3):
            raise InputError(
                f"a decoder has 1 or more convolutions of side 1 or 3 (decoder_convs, decoder_kernel), "
                f"not {convs} of side {kernel}"
            )
        super().__init__()
        self.out_channels = out_channels
        self.steps = nn.ModuleList()
        for channels in low_level_channels:
            step = DecoderStep(in_channels, channels, projected_channels, out_channels, convs, kernel, separable)
            self.steps.append(step)
            in_channels = out_channels

    def forward(self, x: Tensor, x_grid: Grid, low_level: Sequence[Tensor], low_level_grids: Sequence[Grid]) -> Tensor:
        """Refine features.

        Args:
            x: ``(B, in_channels, h, w)``.
            x_grid: where they sit.
            low_level: a feature map ``(B, low_level_channels[i], H_i, W_i)`` for each step, coarse to fine.
            low_level_grids: where these sit.

        Returns:
            ``(B, out_channels, H, W)`` at the positions of the last low-level feature map.
        """
        for step, detail, grid in zip(self.steps, low_level, low_level_grids, strict=True):
            x, x_grid = step(x, x_grid, detail, grid), grid
        return x
