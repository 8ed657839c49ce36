"""Labels at the image's own size from coarse logits on a CPU, without full-size logits in between.

In the cell between four neighbouring positions every logit is bilinear, and so is the difference of two: the class
that is ahead at all four corners is ahead in the whole cell. That alone settles most cells of real logits; only cells
on a boundary are computed pixel by pixel, and there only for the classes that can still win.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from atrous.grid import Grid, Grids, by_side
from atrous.labels import Mask, mask_dtype

Floats = NDArray[np.float32]
Classes = NDArray[np.int32]
Starts = NDArray[np.int64]

_BLOCK = 64
"""Pixels of a cell that are computed together, unless the cell is wider than that."""


def logits_to_labels(logits: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    """The best class of every pixel, as :func:`atrous.ops.labelmap.op.logits_to_labels` describes it."""
    rows, columns = by_side(grid)
    row_starts, down = _cells(logits.shape[2], rows, size[0])
    column_starts, across = _cells(logits.shape[3], columns, size[1])
    room = max(_BLOCK, int(np.diff(column_starts).max()))
    labels = np.empty((len(logits), *size), mask_dtype(logits.shape[1]))
    for array, image in zip(logits.float().contiguous().numpy(), labels, strict=True):
        _fill(array, row_starts, down, column_starts, across, room, image)
    return torch.from_numpy(labels)


def _cells(length: int, grid: Grid, size: int) -> tuple[Starts, Floats]:
    """Which pixels lie in which cell along one axis of ``length`` positions.

    Returns:
        The first pixel of each cell followed by ``size``; and each pixel's place in its cell, 0 to 1. A single
        position counts as one cell whose two ends are the same.
    """
    cells = max(length - 1, 1)
    place = np.clip((np.arange(size) - grid.offset) / grid.stride, 0, length - 1)
    cell = np.minimum(np.floor(place), cells - 1)
    return np.searchsorted(cell, np.arange(cells + 1)), (place - cell).astype(np.float32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    logits: Floats, row_starts: Starts, down: Floats, column_starts: Starts, across: Floats, room: int, labels: Mask
) -> None:
    """Write the labels, row of cells by row of cells; at most ``room`` pixels of a cell are computed together."""
    classes, rows, columns = logits.shape
    above, below = np.empty(columns, np.int32), np.empty(columns, np.int32)
    row_highest = np.empty(columns, np.float32)
    rivals, corners = np.empty(classes, np.int32), np.empty((4, classes), np.float32)
    weights, highest, winner = np.empty((4, room), np.float32), np.empty(room, np.float32), np.empty(room, np.int32)
    _best_of_row(logits, 0, row_highest, below)
    for row in range(row_starts.size - 1):
        next_row = min(row + 1, rows - 1)
        above, below = below, above
        _best_of_row(logits, next_row, row_highest, below)
        top, bottom = row_starts[row], row_starts[row + 1]
        column = 0
        while top < bottom and column < column_starts.size - 1:
            start = column
            label = above[start]
            if above[start] == below[start]:
                while column < column_starts.size - 1:
                    right = min(column + 1, columns - 1)
                    if above[right] != label or below[right] != label:
                        break
                    column += 1
            if column > start:  # a run of cells with one winner
                labels[top:bottom, column_starts[start] : column_starts[column]] = label
                continue
            column += 1
            count = _find_rivals(logits, row, next_row, start, min(column, columns - 1), rivals, corners)
            left, end = column_starts[start], column_starts[column]
            step = max(1, _BLOCK // max(1, end - left))
            for y in range(top, bottom, step):
                part = labels[y : min(y + step, bottom), left:end]
                _decide(rivals[:count], corners, down[y : y + step], across[left:end], weights, highest, winner, part)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _best_of_row(logits: Floats, row: int, highest: Floats, best: Classes) -> None:
    """The best class of each position of a row, and its logit."""
    highest[:] = -np.inf
    best[:] = 0
    for c in range(logits.shape[0]):
        for x in range(highest.size):
            value = logits[c, row, x]
            ahead = value > highest[x]
            highest[x] = value if ahead else highest[x]
            best[x] = c if ahead else best[x]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find_rivals(logits: Floats, top: int, bottom: int, left: int, right: int, rivals: Classes, corners: Floats) -> int:
    """Find the classes that may win somewhere in a cell: those whose highest corner reaches every class's lowest one.

    Returns:
        Their number; ``rivals`` then holds the classes in ascending order, ``corners`` their logits at the corners.
    """
    reach = np.float32(-np.inf)
    for c in range(logits.shape[0]):
        upper = min(logits[c, top, left], logits[c, top, right])
        reach = max(reach, min(upper, min(logits[c, bottom, left], logits[c, bottom, right])))
    count = 0
    for c in range(logits.shape[0]):
        a, b = logits[c, top, left], logits[c, top, right]
        d, e = logits[c, bottom, left], logits[c, bottom, right]
        if max(max(a, b), max(d, e)) >= reach:
            rivals[count] = c
            corners[0, count], corners[1, count], corners[2, count], corners[3, count] = a, b, d, e
            count += 1
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decide(
    rivals: Classes,
    corners: Floats,
    down: Floats,
    across: Floats,
    weights: Floats,
    highest: Floats,
    winner: Classes,
    labels: Mask,
) -> None:
    """Label some pixels of one cell ``(rows, columns)``; ``weights``, ``highest`` and ``winner`` are work space."""
    rows, columns = labels.shape
    one, pixels = np.float32(1), rows * columns
    for y in range(rows):
        for x in range(columns):
            p = y * columns + x
            weights[0, p] = (one - down[y]) * (one - across[x])
            weights[1, p] = (one - down[y]) * across[x]
            weights[2, p] = down[y] * (one - across[x])
            weights[3, p] = down[y] * across[x]
    highest[:pixels] = -np.inf
    winner[:pixels] = 0
    for i in range(rivals.size):
        a, b, d, e, c = corners[0, i], corners[1, i], corners[2, i], corners[3, i], rivals[i]
        for p in range(pixels):
            value = a * weights[0, p] + b * weights[1, p] + d * weights[2, p] + e * weights[3, p]
            ahead = value > highest[p]
            highest[p] = value if ahead else highest[p]
            winner[p] = c if ahead else winner[p]
    for y in range(rows):
        for x in range(columns):
            labels[y, x] = winner[y * columns + x]
