"""Images of any size: a network runs on overlapping tiles, whose coarse logits are blended before they become labels.

Memory depends on the tile, and in small part on the width of the image (one row of tiles at network resolution), never
on its height. Where the overlap is at least twice as wide as what a network sees to one side of a position, the labels
are those of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, pairwise
from math import ceil, floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.files.exif import Pixels
from atrous.data.files.rasters import Span
from atrous.errors import InputError
from atrous.grid import Grid
from atrous.inference.probability_rows import TakeProbabilities, byte_strips
from atrous.inference.test_time import Inference, Network, check_finite
from atrous.labels import Mask
from atrous.ops.labelmap.op import logits_to_labels

ALIGNMENT = 32
"""Tiles start at multiples of this many pixels, so that the positions of all tiles lie on one grid."""
_ROWS = 32
"""Rows of positions that become labels at once."""
SHARE = 10
"""The share of a tile that tiles overlap by at most, unless another overlap is given: 1 / 10. With the bundled network
labels change over seams as often as elsewhere from 96 pixels on, and little more at 64; at 32, seams show."""
MERGED = Grid(4, 0)
"""Where several views of a tile are merged."""

ReadWindow = Callable[[Span, Span], Pixels]
"""Reads uint8 ``(h, w, C)`` of a span of rows and one of columns."""


@dataclass(frozen=True)
class Tiling:
    """How an image is cut.

    Args:
        tile: side of a tile in pixels; 32k + 1 wastes nothing.
        overlap: pixels that neighbouring tiles share. The outer quarters of the overlap are taken from one tile alone,
            and between them the weight moves smoothly from one to the other. When left out, it is what the network
            sees, up to a tenth of the tile (:meth:`fitted`).
        context: pixels that the network sees to each side of a position. Where the overlap is twice as wide, a tile
            has no weight where the network would see beyond it, so that the labels are those of the whole image.
        batch: tiles of one size that run through the network together: neighbours in a row.

    Raises:
        InputError: a tile below 65 pixels, an overlap beyond half a tile, or a batch below 1.

    Example:
        >>> import atrous
        >>> atrous.Tiling(tile=513, overlap=128).spans(1000)
        [(0, 481), (352, 833), (704, 1000)]
    """

    tile: int = 641
    overlap: int | None = None
    context: int = 0
    batch: int = 1

    def __post_init__(self) -> None:
        if self.tile < 2 * ALIGNMENT + 1:
            raise InputError(f"a tile is at least {2 * ALIGNMENT + 1} pixels wide, not {self.tile}")
        if self.overlap is not None and not 0 <= self.overlap <= self.tile // 2:
            raise InputError(f"tiles of {self.tile} pixels overlap by 0 to {self.tile // 2}, not {self.overlap}")
        if self.batch < 1:
            raise InputError(f"a batch is at least 1 tile, not {self.batch}")

    @property
    def shared(self) -> int:
        """The overlap, by default a tenth of the tile."""
        return self.tile // SHARE if self.overlap is None else self.overlap

    @property
    def is_exact(self) -> bool:
        """Whether the labels are those of the whole image, for a network of this context."""
        return 2 * self.context <= self.shared

    def fitted(self, context: int) -> Tiling:
        """The same tiles for a network that sees so many pixels to each side. Without an overlap it is twice that, so
        that labels are those of the whole image, or a tenth of the tile where that is less: beyond it, time grows
        faster than the labels gain.
        """
        overlap = min(2 * context, self.shared) if self.overlap is None else self.overlap
        return replace(self, overlap=overlap, context=context)

    def spans(self, length: int) -> list[Span]:
        """The tiles along a side of an image, as even as possible: first pixel, and the one after the last."""
        if length <= self.tile:
            return [(0, length)]
        most = (self.tile - 1) // ALIGNMENT * ALIGNMENT
        overlap = min(ceil(self.shared / ALIGNMENT) * ALIGNMENT, most - ALIGNMENT)
        longest = most - overlap
        count = ceil((length - overlap - 1) / longest)
        step = ceil((length - overlap - 1) / count / ALIGNMENT) * ALIGNMENT
        starts = [start for start in range(0, length, step) if start == 0 or start + overlap + 1 < length]
        return [(start, length if start == starts[-1] else start + step + overlap + 1) for start in starts]


def tile_weight(spans: list[Span], number: int, grid: Grid, length: int, context: int = 0) -> NDArray[np.float32]:
    """The weight of a tile at each of its positions along a side, ``(length,)``; over all tiles, the weights at any
    position of the image add up to 1.

    Args:
        spans: of all tiles along the side.
        number: of the tile.
        grid: of the positions within the tile.
        length: number of positions.
        context: as in :class:`Tiling`.
    """
    pixels = spans[number][0] + np.arange(length) * grid.stride + grid.offset
    weight = np.ones(length)
    for before, after in pairwise(spans[: number + 1]):
        weight *= _rise(before, after, pixels, context)
    if number + 1 < len(spans):
        weight *= 1 - _rise(spans[number], spans[number + 1], pixels, context)
    return weight.astype(np.float32)


def _rise(before: Span, after: Span, pixels: NDArray[np.floating], context: int) -> NDArray[np.floating]:
    """The share of the later of two tiles: 0 up to the first quarter of their overlap, 1 from the last on; where the
    overlap suffices, no tile has a share within the network's context of its edge.
    """
    first, last = after[0], before[1] - 1
    edge = (last - first) / 4
    if 2 * context <= last - first:
        edge = max(edge, context)
    place = ((pixels - first - edge) / max(last - first - 2 * edge, 1e-9)).clip(0, 1)
    return np.asarray(place * place * (3 - 2 * place))


def label_strips(
    model: Network,
    read: ReadWindow,
    size: tuple[int, int],
    inference: Inference,
    tiling: Tiling,
    *,
    device: torch.device,
    start: int = 0,
    on_tile: Callable[[], None] | None = None,
    on_probabilities: TakeProbabilities | None = None,
) -> Iterator[tuple[int, Mask]]:
    """Find the labels of an image of any size, from top to bottom.

    Args:
        model: prepared to run (:class:`~atrous.inference.prepare.PreparedModel`).
        read: reads windows of the image.
        size: its height and width.
        inference: how a tile becomes logits. A CRF refines each tile by itself; the tiles then meet in the middle of
            their overlap.
        tiling: how the image is cut.
        device: to compute on.
        start: the first row that is wanted, for a run that continues; rows above it are not computed, as far as
            possible.
        on_tile: called after each tile.
        on_probabilities: called with the probabilities of rows before their labels, without a CRF.

    Yields:
        The first row of a strip, and its labels ``(rows, W)``; together they cover the rows from ``start`` on.
    """
    rows, columns = tiling.spans(size[0]), tiling.spans(size[1])
    if inference.crf:
        yield from _refined_strips(model, read, rows, columns, inference, device, start, on_tile)
        return
    strips = _Strips(size)

    def take(rows: Span, logits: Tensor, grid: Grid, above: int) -> None:
        first = max(start, rows[0])
        if on_probabilities and first < rows[1]:
            within, averaged = (first - above, rows[1] - above), inference.averages_probabilities
            for row, found in byte_strips(logits, grid, within, size[1], averaged=averaged):
                on_probabilities(row + above, found)

    carry: Tensor | None = None
    skipped = max(0, max(number for number, span in enumerate(rows) if span[0] <= start) - 1)
    for number in range(skipped, len(rows)):
        band, grid = _band(model, read, rows[number], columns, inference, tiling, device, on_tile)
        band *= torch.from_numpy(tile_weight(rows, number, grid, band.shape[1], tiling.context))[:, None]
        if carry is not None:
            band[:, : carry.shape[1]] += carry
        top = round(rows[number][0] / grid.stride)
        ends = number + 1 == len(rows)
        final = band.shape[1] if ends else round(rows[number + 1][0] / grid.stride) - top
        carry = band[:, final:].clone()
        if number == skipped and skipped:
            strips.skip(band[:, :final], top, grid)  # the blend above these rows is not known
            continue
        for first in range(0, final, _ROWS):
            last = min(first + _ROWS, final)
            begin, labels = strips.add(band[:, first:last], top + first, grid, ends and last == final, take)
            if begin + len(labels) > start:
                yield max(begin, start), labels[max(0, start - begin) :]


def _band(
    model: Network,
    read: ReadWindow,
    rows: Span,
    columns: list[Span],
    inference: Inference,
    tiling: Tiling,
    device: torch.device,
    on_tile: Callable[[], None] | None,
) -> tuple[Tensor, Grid]:
    """The logits of a row of tiles, blended from left to right: float32 ``(C, h, w)`` on the CPU, and their grid within
    each tile.
    """
    band = torch.empty(0)
    for numbers in _groups(columns, tiling.batch):
        found, grid = _tiles(model, [read(rows, columns[number]) for number in numbers], inference, device)
        for number, logits in zip(numbers, found, strict=True):
            if not number:
                width = ceil(columns[-1][1] / grid.stride) + logits.shape[2]  # more than enough
                band = logits.new_zeros((*logits.shape[:2], width))
            left = round(columns[number][0] / grid.stride)
            right = left + logits.shape[2]
            weight = tile_weight(columns, number, grid, logits.shape[2], tiling.context)
            band[:, :, left:right] += logits * torch.from_numpy(weight)
            if on_tile:
                on_tile()
    return band[:, :, :right], grid


def _groups(columns: list[Span], batch: int) -> Iterator[list[int]]:
    """The numbers of neighbouring tiles of one size, at most ``batch`` together."""
    for _, alike in groupby(range(len(columns)), lambda number: columns[number][1] - columns[number][0]):
        while numbers := list(islice(alike, batch)):
            yield numbers


def _tiles(model: Network, pixels: Sequence[Pixels], inference: Inference, device: torch.device) -> tuple[Tensor, Grid]:
    """The logits of tiles of one size ``(B, C, h, w)`` on the CPU, or merged views of them, and their grid."""
    images = torch.cat([image_tensor(tile, device) for tile in pixels])
    views = inference.views(model, model.preprocess(images))
    check_finite(views)
    grid = views[0].grid
    if isinstance(grid, tuple):
        raise InputError(
            "tiles need logits sampled where the features sit, and this model stretches them over the whole image as "
            "torchvision does: set model.resize = 'exact' (--resize exact)"
        )
    if inference.single_view and inference.scales == (1.0,):
        found = views[0].logits
        if ALIGNMENT % grid.stride:
            raise InputError(f"tiles need logits at a stride that divides {ALIGNMENT}, not {grid.stride:g}")
        return found.cpu(), grid
    height, width = images.shape[2:]
    size = ceil((height - 1) / MERGED.stride) + 1, ceil((width - 1) / MERGED.stride) + 1
    return inference.merged(views, MERGED, MERGED, size, width).cpu(), MERGED


def image_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    """uint8 ``(H, W, C)`` → ``(1, C, H, W)`` on a device."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)


class _Strips:
    """Turns rows of logits, as they become final, into rows of labels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.height, self.width = size
        self.tail: Tensor | None = None
        self.first = 0  # the row of positions that the tail begins with
        self.row = 0  # the first row of pixels without labels

    def skip(self, logits: Tensor, top: int, grid: Grid) -> None:
        """Take rows of which only the last are right: no labels come of them."""
        self.row = self._known(top + logits.shape[1], grid)
        self._keep(logits, top, grid)

    def add(
        self, logits: Tensor, top: int, grid: Grid, ends: bool, take: Callable[[Span, Tensor, Grid, int], None]
    ) -> tuple[int, Mask]:
        """The next rows of logits ``(C, h, w)`` → the first row of pixels that they complete, and its labels.

        Before, ``take`` is called with these rows, the logits that determine them, their grid, and the row of pixels
        that the grid counts from.
        """
        if self.tail is not None:
            logits, top = torch.cat([self.tail, logits], dim=1), self.first
        above = round(top * grid.stride)
        below = self.height if ends else min(self.height, self._known(top + logits.shape[1], grid))
        take((self.row, below), logits, grid, above)
        labels = logits_to_labels(logits[None].contiguous(), grid, (below - above, self.width))[0, self.row - above :]
        found = self.row, labels.numpy()
        self.row = below
        self._keep(logits, top, grid)
        return found

    def _known(self, positions: int, grid: Grid) -> int:
        """The rows of pixels that so many rows of positions determine."""
        return max(0, floor((positions - 1) * grid.stride + grid.offset) + 1)

    def _keep(self, logits: Tensor, top: int, grid: Grid) -> None:
        """Keep the positions that rows of pixels to come lie between."""
        self.first = max(top, min(floor((self.row - grid.offset) / grid.stride), floor(self.row / grid.stride)))
        self.tail = logits[:, self.first - top :].clone()


def _refined_strips(
    model: Network,
    read: ReadWindow,
    rows: list[Span],
    columns: list[Span],
    inference: Inference,
    device: torch.device,
    start: int,
    on_tile: Callable[[], None] | None,
) -> Iterator[tuple[int, Mask]]:
    """Strips of labels that a CRF has refined tile by tile."""
    inner_rows, inner_columns = _cores(rows), _cores(columns)
    for span, (top, bottom) in zip(rows, inner_rows, strict=True):
        if bottom <= start:
            continue
        parts = []
        for across, (left, right) in zip(columns, inner_columns, strict=True):
            labels = inference(model, image_tensor(read(span, across), device))[0].cpu().numpy()
            parts.append(labels[top - span[0] : bottom - span[0], left - across[0] : right - across[0]])
            if on_tile:
                on_tile()
        yield max(top, start), np.concatenate(parts, axis=1)[max(0, start - top) :]


def _cores(spans: list[Span]) -> list[Span]:
    """The part of each tile that is taken: up to the middle of the overlaps."""
    edges = [(after[0] + before[1]) // 2 for before, after in pairwise(spans)]
    return list(zip([0, *edges], [*edges, spans[-1][1]], strict=True))
