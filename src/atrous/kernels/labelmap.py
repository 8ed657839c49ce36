"""From class scores at network resolution to labels at the picture's own size, without full-size scores in between.

Between four neighbouring positions every score is bilinear, and so is the difference of two scores: whoever is ahead at all four corners is
ahead everywhere between them. Most cells of a real score map are settled by that alone; only cells on a boundary are looked at pixel by pixel,
and there only the classes that can still win.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.labels import Mask

Scores = NDArray[np.float32]
Places = NDArray[np.int64]
Shares = NDArray[np.float32]


def scores_to_labels(scores: Scores, stride: float, offset: float, size: tuple[int, int]) -> Mask:
    """The best class of every pixel, scores being interpolated bilinearly between the places where the network computed them.

    Args:
        scores: float32 ``(C, h, w)``, any range; 1 to 255 classes. Position *i* sits at pixel ``stride * i + offset``, in rows and columns
            alike; beyond the outermost positions scores stay what they are there.
        stride: pixels from one position to the next, positive.
        offset: the pixel of position 0.
        size: height and width of the result, whether or not the positions cover it.

    Returns:
        uint8 ``(H, W)``; among equals the lowest class.

    Raises:
        TypeError: scores are not float32.
        ValueError: there is no class, too many classes, or no position.
    """
    _check(scores)
    height, width = size
    row_starts, row_shares = _cells(scores.shape[1], stride, offset, height)
    column_starts, column_shares = _cells(scores.shape[2], stride, offset, width)
    labels = np.empty(size, np.uint8)
    _fill(np.ascontiguousarray(scores), row_starts, row_shares, column_starts, column_shares, labels)
    return labels


def scores_to_labels_reference(scores: Scores, stride: float, offset: float, size: tuple[int, int]) -> Mask:
    """What :func:`scores_to_labels` computes, by way of full-size scores."""
    _check(scores)
    full = scores.astype(np.float64)
    for axis in (1, 2):
        length = full.shape[axis]
        place = np.clip((np.arange(size[axis - 1]) - offset) / stride, 0, length - 1)
        left = np.minimum(np.floor(place).astype(np.int64), max(length - 2, 0))
        share = np.expand_dims(place - left, 1 if axis == 1 else 0)
        right = np.minimum(left + 1, length - 1)
        full = full.take(left, axis) * (1 - share) + full.take(right, axis) * share
    labels: Mask = full.argmax(axis=0).astype(np.uint8)
    return labels


def _check(scores: Scores) -> None:
    if scores.dtype != np.float32:
        raise TypeError(f"scores must be float32, not {scores.dtype}")
    if scores.ndim != 3 or not 1 <= scores.shape[0] <= 255 or 0 in scores.shape:
        raise ValueError(
            f"scores must be (classes, rows, columns) with 1 to 255 classes and at least one position, not {scores.shape}"
        )


def _cells(length: int, stride: float, offset: float, size: int) -> tuple[Places, Shares]:
    """Which pixels lie in which cell along one axis.

    Returns:
        The first pixel of each cell, and after the last cell the number of pixels ``(max(length - 1, 1) + 1,)``; and for each pixel how far
        it is on its way through the cell, 0 to 1 ``(size,)``.
    """
    cells = max(length - 1, 1)
    place = np.clip((np.arange(size) - offset) / stride, 0, length - 1)
    cell = np.minimum(np.floor(place).astype(np.int64), cells - 1)
    return np.searchsorted(cell, np.arange(cells + 1)), (place - cell).astype(np.float32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _best_of_row(scores: Scores, row: int, top: Shares, best: NDArray[np.int32]) -> None:
    """The best class at every position of one row; ``top`` is room for its score."""
    for x in range(scores.shape[2]):
        top[x] = scores[0, row, x]
        best[x] = 0
    for c in range(1, scores.shape[0]):
        for x in range(scores.shape[2]):
            ahead = scores[c, row, x] > top[x]
            top[x] = scores[c, row, x] if ahead else top[x]
            best[x] = c if ahead else best[x]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    scores: Scores, row_starts: Places, row_shares: Shares, column_starts: Places, column_shares: Shares, labels: Mask
) -> None:
    classes, rows, columns = scores.shape
    top = np.empty(columns, np.float32)
    above = np.empty(columns, np.int32)
    below = np.empty(columns, np.int32)
    rivals = np.empty(classes, np.int64)
    _best_of_row(scores, 0, top, below)
    for r in range(row_starts.size - 1):
        r1 = min(r + 1, rows - 1)
        above, below = below, above
        _best_of_row(scores, r1, top, below)
        first, last = row_starts[r], row_starts[r + 1]
        if first == last:
            continue
        x = 0
        while x < column_starts.size - 1:
            begin = x
            label = above[x]
            while (
                x < column_starts.size - 1
                and above[x] == label
                and below[x] == label
                and above[min(x + 1, columns - 1)] == label
                and below[min(x + 1, columns - 1)] == label
            ):
                x += 1
            if x > begin:
                labels[first:last, column_starts[begin] : column_starts[x]] = label
                continue
            x1 = min(x + 1, columns - 1)
            floor = np.float32(-np.inf)
            for c in range(classes):
                floor = max(floor, min(scores[c, r, x], scores[c, r, x1], scores[c, r1, x], scores[c, r1, x1]))
            count = 0
            for c in range(classes):
                if max(scores[c, r, x], scores[c, r, x1], scores[c, r1, x], scores[c, r1, x1]) >= floor:
                    rivals[count] = c
                    count += 1
            for py in range(first, last):
                v = row_shares[py]
                for px in range(column_starts[x], column_starts[x + 1]):
                    u = column_shares[px]
                    winner, best = 0, np.float32(-np.inf)
                    for i in range(count):
                        c = rivals[i]
                        left = scores[c, r, x] * (1 - v) + scores[c, r1, x] * v
                        right = scores[c, r, x1] * (1 - v) + scores[c, r1, x1] * v
                        value = left * (1 - u) + right * u
                        if value > best:
                            winner, best = c, value
                    labels[py, px] = winner
            x += 1
