"""Depthwise convolution on channels-last maps on a GPU, and its gradients, in Triton; dilated and strided at will.

cuDNN has fast channels-last code for kernels that are not dilated; dilated ones it computes on a copy in another
layout, or by kernels made for few groups, up to a hundred times slower than memory would allow. The reference is
:func:`atrous.ops.depthwise.op.depthwise_reference`. Here a program computes some positions of some channels; a tap
after the other is read, most of them from cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHANNELS, _POSITIONS = 64, 32
"""What a program computes together: 16 numbers for each thread of four warps."""
_PROGRAMS = 4096
"""About how many programs share the gradient by the weights: some waves of them on a large GPU."""


def correlate(
    x: Tensor,
    taps: Tensor,
    kernel: Sequence[int],
    stride: int,
    dilation: int,
    before: Sequence[int],
    step: int,
    out: Tensor,
    *,
    flip: bool = False,
) -> None:
    """Convolve each channel with its own kernel.

    Args:
        x: ``(B, C, H, W)`` in channels-last memory.
        taps: ``(kh · kw, C)``, any floating dtype.
        kernel: kh, kw.
        stride: of the output.
        dilation: of the kernel.
        before: zeros above and to the left of the input.
        step: the input's positions lie so far apart, with zeros between them (2 for the gradient of a stride of 2).
        out: ``(B, C, rows, columns)`` in channels-last memory; written.
        flip: whether the kernel is turned by 180°, as it is for the gradient by the input.
    """
    positions = out.shape[0] * out.shape[2] * out.shape[3]
    grid = (triton.cdiv(positions, _POSITIONS), triton.cdiv(x.shape[1], _CHANNELS))
    with torch.cuda.device_of(x):
        _correlate[grid](
            x,
            taps,
            out,
            positions,
            *x.shape[1:],
            *out.shape[2:],
            *before,
            KH=kernel[0],
            KW=kernel[1],
            STRIDE=stride,
            DILATION=dilation,
            STEP=step,
            FLIP=flip,
            POSITIONS=_POSITIONS,
            CHANNELS=_CHANNELS,
            enable_fp_fusion=True,
        )


@triton.jit
def _correlate(
    x,
    taps,
    out,
    positions,
    channels,
    height,
    width,
    rows,
    columns,
    top,
    left,
    KH: tl.constexpr,
    KW: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    STEP: tl.constexpr,
    FLIP: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    column = position % columns
    row = position // columns % rows
    image = position // (columns * rows)
    inside = (position < positions)[:, None] & (channel < channels)[None, :]
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for ky in tl.static_range(KH):
        y = row * STRIDE - top + ky * DILATION
        for kx in tl.static_range(KW):
            z = column * STRIDE - left + kx * DILATION
            there = (y >= 0) & (z >= 0) & (y < height * STEP) & (z < width * STEP)
            if STEP > 1:
                there = there & (y % STEP == 0) & (z % STEP == 0)
            place = ((image * height + y // STEP) * width + z // STEP).to(tl.int64) * channels
            values = tl.load(x + place[:, None] + channel[None, :], mask=inside & there[:, None], other=0.0)
            number = KH * KW - 1 - (ky * KW + kx) if FLIP else ky * KW + kx
            tap = tl.load(taps + number * channels + channel, mask=channel < channels, other=0.0)
            total += values.to(tl.float32) * tap.to(tl.float32)[None, :]
    places = position.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(out + places, total.to(out.dtype.element_ty), mask=inside)


def weight_gradient(
    x: Tensor, gradient: Tensor, kernel: Sequence[int], stride: int, dilation: int, padding: Sequence[int]
) -> Tensor:
    """The gradient by the weights.

    Args:
        x: the input ``(B, C, H, W)``, in channels-last memory.
        gradient: by the output ``(B, C, rows, columns)``, in channels-last memory.
        kernel: kh, kw.
        stride: of the output.
        dilation: of the kernel.
        padding: zeros above and to the left of the input.

    Returns:
        float32 ``(kh · kw, C)``.
    """
    positions = gradient.shape[0] * gradient.shape[2] * gradient.shape[3]
    taps, blocks = kernel[0] * kernel[1], triton.cdiv(x.shape[1], _CHANNELS)
    parts = max(1, min(_PROGRAMS // (taps * blocks), triton.cdiv(positions, _POSITIONS)))
    share = triton.cdiv(triton.cdiv(positions, parts), _POSITIONS) * _POSITIONS
    sums = torch.empty(parts, taps, x.shape[1], device=x.device)
    with torch.cuda.device_of(x):
        _weight_gradient[(taps, blocks, parts)](
            x,
            gradient,
            sums,
            positions,
            share,
            *x.shape[1:],
            *gradient.shape[2:],
            *padding,
            KW=kernel[1],
            STRIDE=stride,
            DILATION=dilation,
            POSITIONS=_POSITIONS,
            CHANNELS=_CHANNELS,
            enable_fp_fusion=True,
        )
    return sums.sum(0)


@triton.jit
def _weight_gradient(
    x,
    gradient,
    sums,
    positions,
    share,
    channels,
    height,
    width,
    rows,
    columns,
    top,
    left,
    KW: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    tap, part = tl.program_id(0), tl.program_id(2)
    down, across = tap // KW * DILATION - top, tap % KW * DILATION - left
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = (channel < channels)[None, :]
    total = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for first in range(part * share, min(part * share + share, positions), POSITIONS):
        position = first + tl.arange(0, POSITIONS)
        y = position // columns % rows * STRIDE + down
        z = position % columns * STRIDE + across
        there = (position < positions) & (y >= 0) & (z >= 0) & (y < height) & (z < width)
        place = ((position // (columns * rows) * height + y) * width + z).to(tl.int64) * channels
        places = position.to(tl.int64) * channels
        mask = there[:, None] & real
        mine = tl.load(x + place[:, None] + channel[None, :], mask=mask, other=0.0)
        theirs = tl.load(gradient + places[:, None] + channel[None, :], mask=mask, other=0.0)
        total += mine.to(tl.float32) * theirs.to(tl.float32)
    place = (part * tl.num_programs(0) + tap) * channels + channel
    tl.store(sums + place, tl.sum(total, 0), mask=channel < channels)
