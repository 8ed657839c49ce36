"""From class scores at network resolution to labels at the image's own size, without full-size scores in between.

In the cell between four neighbouring positions every score is bilinear, and so is the difference of two scores: the
class that is ahead at all four corners is ahead in the whole cell. That alone settles most cells of a real score map;
only cells on a boundary are computed pixel by pixel, and there only the classes that can still win.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.errors import InputError, InputTypeError
from atrous.labels import Mask

Floats = NDArray[np.float32]
Classes = NDArray[np.int32]
Starts = NDArray[np.int64]

_BLOCK = 64
"""Pixels of a cell that are computed together, where the cell is not wider than that."""


def logits_to_labels(scores: Floats, stride: float, offset: float, size: tuple[int, int]) -> Mask:
    """The best class of every pixel, scores being bilinear between the places where the network computed them.

    Args:
        scores: float32 ``(C, h, w)``, finite, 1 to 255 classes. Position *i* sits at pixel ``stride * i + offset``, in
            rows and columns alike; beyond the outermost positions scores stay what they are there.
        stride: pixels from one position to the next, positive.
        offset: the pixel of position 0.
        size: height and width of the result, whether or not the positions cover it.

    Returns:
        uint8 ``(H, W)``; among equals the lowest class.

    Raises:
        TypeError: scores are not float32.
        ValueError: there is no class or no position, or there are too many classes.
    """
    _check(scores)
    _, rows, columns = scores.shape
    row_starts, down = _cells(rows, stride, offset, size[0])
    column_starts, across = _cells(columns, stride, offset, size[1])
    labels = np.empty(size, np.uint8)
    room = max(_BLOCK, int(np.diff(column_starts).max()))
    _fill(np.ascontiguousarray(scores), row_starts, down, column_starts, across, room, labels)
    return labels


def logits_to_labels_reference(scores: Floats, stride: float, offset: float, size: tuple[int, int]) -> Mask:
    """What :func:`logits_to_labels` computes, by way of full-size scores in double precision."""
    _check(scores)
    labels: Mask = full_size_logits(scores, stride, offset, size).argmax(axis=0).astype(np.uint8)
    return labels


def full_size_logits(scores: Floats, stride: float, offset: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """The scores ``(C, H, W)`` of every pixel, as :func:`logits_to_labels` describes them."""
    full = scores.astype(np.float64)
    for axis in (1, 2):
        last = full.shape[axis] - 1
        place = np.clip((np.arange(size[axis - 1]) - offset) / stride, 0, last)
        before = np.floor(place).astype(np.int64)
        share = (place - before).reshape((-1, 1) if axis == 1 else (1, -1))
        full = full.take(before, axis) * (1 - share) + full.take(np.minimum(before + 1, last), axis) * share
    return full


def _check(scores: Floats) -> None:
    if scores.dtype != np.float32:
        raise InputTypeError(f"scores must be float32, not {scores.dtype}")
    if scores.ndim != 3 or 0 in scores.shape or scores.shape[0] > 255:
        raise InputError(
            f"scores must be (classes, rows, columns), 1 to 255 classes and at least one position, not {scores.shape}"
        )


def _cells(length: int, stride: float, offset: float, size: int) -> tuple[Starts, Floats]:
    """Which pixels lie in which cell along one axis of ``length`` positions.

    Returns:
        The first pixel of each cell and, at the end, ``size``; and how far each pixel is on its way through its cell,
        0 to 1. A single position counts as one cell whose two ends are the same.
    """
    cells = max(length - 1, 1)
    place = np.clip((np.arange(size) - offset) / stride, 0, length - 1)
    cell = np.minimum(np.floor(place), cells - 1)
    return np.searchsorted(cell, np.arange(cells + 1)), (place - cell).astype(np.float32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    scores: Floats, row_starts: Starts, down: Floats, column_starts: Starts, across: Floats, room: int, labels: Mask
) -> None:
    """Write the labels, one row of cells after the other; at most ``room`` pixels of a cell are computed together."""
    classes, rows, columns = scores.shape
    above, below = np.empty(columns, np.int32), np.empty(columns, np.int32)
    best_score = np.empty(columns, np.float32)
    rivals, corners = np.empty(classes, np.int32), np.empty((4, classes), np.float32)
    weights, score, winner = np.empty((4, room), np.float32), np.empty(room, np.float32), np.empty(room, np.int32)
    _best_of_row(scores, 0, best_score, below)
    for row in range(row_starts.size - 1):
        next_row = min(row + 1, rows - 1)
        above, below = below, above
        _best_of_row(scores, next_row, best_score, below)
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
            count = _find_rivals(scores, row, next_row, start, min(column, columns - 1), rivals, corners)
            left, end = column_starts[start], column_starts[column]
            step = max(1, _BLOCK // max(1, end - left))
            for y in range(top, bottom, step):
                part = labels[y : min(y + step, bottom), left:end]
                _decide(rivals[:count], corners, down[y : y + step], across[left:end], weights, score, winner, part)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _best_of_row(scores: Floats, row: int, score: Floats, best: Classes) -> None:
    """The best class of each position of a row, and its score."""
    score[:] = -np.inf
    best[:] = 0
    for c in range(scores.shape[0]):
        for x in range(score.size):
            value = scores[c, row, x]
            ahead = value > score[x]
            score[x] = value if ahead else score[x]
            best[x] = c if ahead else best[x]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find_rivals(scores: Floats, top: int, bottom: int, left: int, right: int, rivals: Classes, corners: Floats) -> int:
    """The classes that may win somewhere in a cell: those that reach, at some corner, what another has at all four.

    Returns:
        How many there are; they stand in ``rivals`` in rising order, and in ``corners`` their scores at the corners.
    """
    reach = np.float32(-np.inf)
    for c in range(scores.shape[0]):
        upper = min(scores[c, top, left], scores[c, top, right])
        reach = max(reach, min(upper, min(scores[c, bottom, left], scores[c, bottom, right])))
    count = 0
    for c in range(scores.shape[0]):
        a, b = scores[c, top, left], scores[c, top, right]
        d, e = scores[c, bottom, left], scores[c, bottom, right]
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
    score: Floats,
    winner: Classes,
    labels: Mask,
) -> None:
    """Label some pixels of one cell ``(rows, columns)``; ``weights``, ``score`` and ``winner`` are room to work in."""
    rows, columns = labels.shape
    one, pixels = np.float32(1), rows * columns
    for y in range(rows):
        for x in range(columns):
            p = y * columns + x
            weights[0, p] = (one - down[y]) * (one - across[x])
            weights[1, p] = (one - down[y]) * across[x]
            weights[2, p] = down[y] * (one - across[x])
            weights[3, p] = down[y] * across[x]
    score[:pixels] = -np.inf
    winner[:pixels] = 0
    for i in range(rivals.size):
        a, b, d, e, c = corners[0, i], corners[1, i], corners[2, i], corners[3, i], rivals[i]
        for p in range(pixels):
            value = a * weights[0, p] + b * weights[1, p] + d * weights[2, p] + e * weights[3, p]
            ahead = value > score[p]
            score[p] = value if ahead else score[p]
            winner[p] = c if ahead else winner[p]
    for y in range(rows):
        for x in range(columns):
            labels[y, x] = winner[y * columns + x]
