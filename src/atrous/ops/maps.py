"""Filling a channels-last map on a CPU from others, side by side along its channels: copied, or enlarged bilinearly.

torch's concatenation of channels-last maps copies them by slow general code, and an enlarged map would be written and
read once more. The reference is :func:`atrous.grid.resample` and ``torch.cat``.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from atrous.ops.workers import share_rows

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


def copy_into(x: Tensor, out: Tensor, offset: int) -> None:
    """Copy ``(B, C, H, W)`` to channels ``offset`` on of ``out``; both are float32 and channels-last."""
    source, target = (t.permute(0, 2, 3, 1).numpy() for t in (x, out))
    for image, result in zip(source, target, strict=True):
        share_rows(partial(_copy, image, result, offset), len(result))


def enlarge_into(x: Tensor, down: Floats, across: Floats, out: Tensor, offset: int) -> None:
    """Enlarge a map bilinearly to channels ``offset`` on of another.

    Args:
        x: float32 ``(B, C, h, w)``, channels-last.
        down: ``(3, H)``: for each row of the result the two rows of ``x`` that it lies between, and its place between
            them, 0 to 1.
        across: ``(3, W)``, the same for columns.
        out: float32 ``(B, K, H, W)``, channels-last; written.
        offset: first channel that is written.
    """
    source, target = (t.permute(0, 2, 3, 1).numpy() for t in (x, out))
    rows, columns = down[:2].astype(np.int64), across[:2].astype(np.int64)
    for image, result in zip(source, target, strict=True):
        share_rows(partial(_enlarge, image, rows, down[2], columns, across[2], result, offset), len(result))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _copy(x: Floats, out: Floats, offset: int, first: int, last: int) -> None:
    for y in range(first, last):
        for column in range(x.shape[1]):
            for c in range(x.shape[2]):
                out[y, column, offset + c] = x[y, column, c]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _enlarge(
    x: Floats,
    rows: Indices,
    down: Floats,
    columns: Indices,
    across: Floats,
    out: Floats,
    offset: int,
    first: int,
    last: int,
) -> None:
    channels = x.shape[2]
    line = np.empty((x.shape[1], channels), np.float32)
    for y in range(first, last):
        upper, lower, t = x[rows[0, y]], x[rows[1, y]], down[y]
        for column in range(x.shape[1]):
            for c in range(channels):
                line[column, c] = upper[column, c] + (lower[column, c] - upper[column, c]) * t
        for column in range(out.shape[1]):
            left, right, s = line[columns[0, column]], line[columns[1, column]], across[column]
            for c in range(channels):
                out[y, column, offset + c] = left[c] + (right[c] - left[c]) * s


def interpolation(taps: Tensor) -> Floats | None:
    """The form that :func:`enlarge_into` takes of an interpolation matrix ``(H, h)``; None for any other matrix."""
    matrix = taps.numpy()
    count = (matrix != 0).sum(1)
    if count.max() > 2 or count.min() < 1 or not np.allclose(matrix.sum(1), 1, atol=1e-6):
        return None
    lower = (matrix != 0).argmax(1)
    upper = np.minimum(lower + 1, matrix.shape[1] - 1)
    place = np.where(upper > lower, matrix[np.arange(len(matrix)), upper], 0)
    if (count == 2).any() and not (matrix[np.arange(len(matrix)), upper][count == 2] != 0).all():
        return None
    return np.stack([lower, upper, place]).astype(np.float32)
