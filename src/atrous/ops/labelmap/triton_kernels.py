"""Labels at the image's own size from coarse logits on a GPU, in Triton, without full-size logits in between.

Each thread keeps the best class so far of a few pixels; the logits around them come from the cache. The reference is
:func:`atrous.ops.labelmap.op.logits_to_labels_reference`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atrous.grid import Grid, Grids, by_side
from atrous.ops.labelmap.op import label_dtype

_ROWS, _COLUMNS = 4, 128
"""Pixels that a program computes."""


def logits_to_labels(logits: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    """The best class of every pixel, as :func:`atrous.ops.labelmap.op.logits_to_labels` describes it.

    ``logits`` may have any strides.
    """
    batch, classes, height, width = logits.shape
    rows, columns = (
        _neighbours(side, n, length, logits.device)
        for side, n, length in zip(by_side(grid), size, (height, width), strict=True)
    )
    labels = torch.empty(batch, *size, dtype=label_dtype(logits), device=logits.device)
    with torch.cuda.device_of(logits):
        _logits_to_labels[(triton.cdiv(size[0], _ROWS), triton.cdiv(size[1], _COLUMNS), batch)](
            logits,
            *rows,
            *columns,
            labels,
            classes,
            height,
            width,
            *size,
            *logits.stride(),
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            enable_fp_fusion=True,
        )
    return labels


def _neighbours(grid: Grid, size: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of ``size`` pixels along an axis of ``length`` positions, the position before it, int32, and the weight
    of the position after it, float32; both ``(size,)``.
    """
    places = (torch.arange(size, dtype=torch.float64, device=device) - grid.offset) / grid.stride
    places = places.clamp(0, length - 1)
    before = places.floor()
    return before.int(), (places - before).float()


@triton.jit
def _logits_to_labels(
    logits,
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
    place = logits + image * image_stride
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
    tl.store(labels + pixels, label.to(labels.dtype.element_ty), mask=inside)


@triton.jit
def _between(above, below, down):
    one = tl.load(above).to(tl.float32)
    return one + down * (tl.load(below).to(tl.float32) - one)
