"""Where features sit: the exact position of every element of a feature map in the input image.

The centre of position *i* of a map sits at input pixel ``stride * i + offset`` (pixel centres are integers). A window
(convolution, pooling) with kernel k, stride s, padding p and dilation d multiplies the stride by s and adds
``((k - 1) / 2 * d - p)`` times the stride so far to the offset. The offset is 0 for padded odd kernels (most ResNets)
and ``(stride - 1) / 2`` for 2×2 pools and patch stems (VGG, ConvNeXt), so neither half-pixel nor aligned-corner
resizing is right for both. :func:`atrous.models.surgery.trace.trace` reads the grid off a network, and
:func:`resample` samples a map at the positions of another grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a grid alone, as in the results of an exported model, needs no torch
    from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Positions of a feature map: element *i* sits at input pixel ``stride * i + offset``, for rows and columns.

    Example:
        >>> import atrous
        >>> atrous.Grid(1, 0).window(kernel=2, stride=2)  # after a 2×2 pool
        Grid(stride=2, offset=0.5)
    """

    stride: float
    offset: float

    def window(self, kernel: int, stride: int = 1, padding: float = 0, dilation: int = 1) -> Grid:
        """The grid after a convolution or pooling with these settings."""
        return Grid(self.stride * stride, self.offset + ((kernel - 1) / 2 * dilation - padding) * self.stride)

    def transposed(self, kernel: int, stride: int, padding: float = 0) -> Grid:
        """The grid after a transposed convolution ("deconvolution")."""
        fine = self.stride / stride
        return Grid(fine, self.offset - ((kernel - 1) / 2 - padding) * fine)

    def cropped(self, start: int) -> Grid:
        """The grid after dropping the first ``start`` positions (negative: after padding that many in front)."""
        return replace(self, offset=self.offset + start * self.stride)

    def unscaled(self, scale: float) -> Grid:
        """The grid in pixels of an image that the network saw at a scale."""
        return Grid(self.stride / scale, self.offset / scale)

    @classmethod
    def spread(cls, positions: int, pixels: int) -> Grid:
        """Positions spread evenly over a side, each in the middle of its share of the pixels: what
        ``F.interpolate(mode="bilinear", align_corners=False)`` assumes of any map.
        """
        stride = pixels / positions
        return cls(stride, (stride - 1) / 2)


Numbers = TypeVar("Numbers", NDArray[Any], "Tensor")
PIXELS = Grid(1, 0)
"""The grid of the image itself."""
Grids = Grid | tuple[Grid, Grid]
"""Where the positions of a map sit: one grid, or two where its rows and its columns differ."""


def by_side(grids: Grids) -> tuple[Grid, Grid]:
    """The grid of the rows, and that of the columns."""
    return grids if isinstance(grids, tuple) else (grids, grids)


def unscaled(grids: Grids, scale: float) -> Grids:
    """The grid of each side in pixels of an image that the network saw at a scale."""
    if isinstance(grids, tuple):
        return grids[0].unscaled(scale), grids[1].unscaled(scale)
    return grids.unscaled(scale)


def _taps(source: Grid, target: Grid, size: int, length: int, fade: bool, x: Tensor) -> Tensor:
    """Linear interpolation from ``length`` source to ``size`` target positions, as a matrix ``(size, length)`` beside
    ``x`` and of its dtype.
    """
    import torch

    if not (x.is_cuda or torch.compiler.is_compiling()):
        return torch.from_numpy(_kept_taps(source, target, size, length, fade)).to(x)
    # Computed on the device: a copy would make the host wait for all pending work of the GPU. In a compiled or exported
    # network these are operations, which follow the actual size; an array would keep that of the example.
    home = x.device if x.is_cuda else torch.device("cpu")  # not every device has float64
    targets, sources = (torch.arange(n, dtype=torch.float64, device=home) for n in (size, length))
    return _interpolation(targets, sources, source, target, fade).to(x)


@lru_cache(maxsize=256)
def _kept_taps(source: Grid, target: Grid, size: int, length: int, fade: bool) -> NDArray[np.float32]:
    """In NumPy: a cached tensor would keep the mode of its first use (inference mode, or the fake tensors of an
    export).
    """
    taps = _interpolation(np.arange(size), np.arange(length), source, target, fade)
    return taps.astype(np.float32, copy=False)


def _interpolation(targets: Numbers, sources: Numbers, source: Grid, target: Grid, fade: bool) -> Numbers:
    """The weights ``(size, length)`` of source positions in target positions, both numbered from 0; arrays or tensors
    in double precision.
    """
    place = (targets * target.stride + target.offset - source.offset) / source.stride
    if not fade:
        place = place.clip(sources[:1], sources[-1:])
    shares: Numbers = (1 - abs(place[:, None] - sources)).clip(min=0)
    return shares


def resample(x: Tensor, source: Grids, target: Grids, size: tuple[int, int], *, fade: bool = False) -> Tensor:
    """Sample a feature map bilinearly at the positions of another grid; beyond its outermost ones it is constant.

    Two small matrix products: exact for any size, differentiable, and deterministic on every device. The memory
    format is kept.

    Args:
        x: features ``(B, C, h, w)`` on the grid ``source``.
        source: where the positions of ``x`` sit; two grids where its rows and its columns differ.
        target: where the positions of the result sit, likewise.
        size: height and width of the result.
        fade: beyond its outermost positions the map fades to zero within one step instead: what a transposed
            convolution with a bilinear kernel gives, cropped to the target (FCN, arXiv 1411.4038, §3.3).

    Returns:
        ``(B, C, *size)`` in the dtype of ``x``.

    Example:
        >>> import atrous, torch
        >>> coarse = torch.tensor([[[[0.0, 8.0]]]])  # two positions, at pixels 0 and 8
        >>> atrous.resample(coarse, atrous.Grid(8, 0), atrous.Grid(1, 0), (1, 5))
        tensor([[[[0., 1., 2., 3., 4.]]]])
    """
    import torch

    batch, channels, h, w = x.shape
    height, width = size
    sources, targets = by_side(source), by_side(target)
    if sources == targets and (h, w) == (height, width):
        return x
    down = _taps(sources[0], targets[0], height, h, fade, x)
    across = _taps(sources[1], targets[1], width, w, fade, x)
    if channels > 1 and not torch.compiler.is_exporting() and x.is_contiguous(memory_format=torch.channels_last):
        lines = x.permute(0, 2, 3, 1).reshape(batch, h, w * channels)  # (B, h, w·C), a view
        mixed = (down @ lines).view(batch * height, w, channels)
        return (across @ mixed).view(batch, height, width, channels).permute(0, 3, 1, 2)
    return down @ (x @ across.T)
