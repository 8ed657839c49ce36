"""From scores at network resolution to labels of the image's pixels on a GPU, in Triton: no full-size scores.

The reference is :func:`atrous.grid.resample` and ``argmax``. Each thread holds the best class so far of a
few pixels; the scores around them come from cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS = 4, 128
"""The pixels of a program."""


def logits_to_labels(scores: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """The best class of each pixel, the lowest among equals.

    Args:
        scores: floating ``(B, C, h, w)``, any strides.
        rows: for each row of pixels the position above it, int32 ``(H,)``, and the share of the next, float32 ``(H,)``.
        columns: likewise, ``(W,)``.

    Returns:
        uint8 ``(B, H, W)``.
    """
    batch, classes, height, width = scores.shape
    size = len(rows[0]), len(columns[0])
    labels = torch.empty(batch, *size, dtype=torch.uint8, device=scores.device)
    with torch.cuda.device_of(scores):
        _logits_to_labels[(triton.cdiv(size[0], _ROWS), triton.cdiv(size[1], _COLUMNS), batch)](
            scores,
            *rows,
            *columns,
            labels,
            classes,
            height,
            width,
            *size,
            *scores.stride(),
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            enable_fp_fusion=True,
        )
    return labels


@triton.jit
def _logits_to_labels(
    scores,
    aboves,
    downs,
    lefts,
    acrosses,
    labels,
    classes,
    height,
    width,
    rows,
    columns,
    image_stride,
    class_stride,
    row_stride,
    column_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    image = tl.program_id(2).to(tl.int64)
    above = tl.load(aboves + row, mask=row < rows, other=0).to(tl.int64)
    down = tl.load(downs + row, mask=row < rows, other=0.0)[:, None]
    left = tl.load(lefts + column, mask=column < columns, other=0).to(tl.int64)
    across = tl.load(acrosses + column, mask=column < columns, other=0.0)[None, :]
    upper = (above * row_stride)[:, None]
    lower = (tl.minimum(above + 1, height - 1) * row_stride)[:, None]
    near = (left * column_stride)[None, :]
    far = (tl.minimum(left + 1, width - 1) * column_stride)[None, :]
    best = tl.full((ROWS, COLUMNS), -float("inf"), tl.float32)
    label = tl.zeros((ROWS, COLUMNS), tl.int32)
    place = scores + image * image_stride
    for number in range(classes):
        before = _between(place + upper + near, place + lower + near, down)
        after = _between(place + upper + far, place + lower + far, down)
        value = before + across * (after - before)
        better = value > best
        best = tl.where(better, value, best)
        label = tl.where(better, number, label)
        place += class_stride
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    pixels = (image * rows + row[:, None]) * columns + column[None, :]
    tl.store(labels + pixels, label.to(tl.uint8), mask=inside)


@triton.jit
def _between(above, below, down):
    one = tl.load(above).to(tl.float32)
    return one + down * (tl.load(below).to(tl.float32) - one)
