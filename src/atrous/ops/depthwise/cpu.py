"""Depthwise convolution of channels-last maps on a CPU, and its gradients, in compiled code, at any dilation.

torch's CPU library has no fast code for most of these: dilated ones, and all gradients with respect to weights of 5×5
kernels, take ten to thirty times as long as the arithmetic needs. The reference is
:func:`atrous.ops.depthwise.op.depthwise_reference`.

Thirty-two channels at a time are copied to float32 rows that are zero where the padding is and fit into the cache;
there every output is a sum without a single test. Rows of the padding are left out. In compiled code, arrays are
addresses of contiguous memory ``(B, H, W, C)``, bfloat16 or float32, C at least :data:`CHANNELS`; blocks of channels
overlap at the end if C is not a multiple of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from atrous.ops.simd import LANES, add, address, load, load_bfloat16, multiply_add, spread, store, store_bfloat16
from atrous.ops.workers import share_rows

CHANNELS = 2 * LANES
"""Channels that are computed together."""
_TOGETHER = 4
"""Neighbouring outputs that are computed together: each weight is loaded once for all of them."""
_ROOM = 1 << 17
"""Floats of cache that the rows of a block may take (half of a usual second-level cache)."""


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
        x: ``(B, C, H, W)`` in channels-last memory, float32 or bfloat16.
        taps: the kernels, ``(kh · kw, C)``, any floating dtype.
        kernel: kh, kw.
        stride: stride of the output.
        dilation: dilation of the kernel.
        before: zeros above and to the left of the input.
        step: distance of the input's positions, with zeros between them (2 for the gradient of a stride of 2).
        out: ``(B, C, rows, columns)`` in channels-last memory, of the dtype of ``x``; written.
        flip: whether the kernel is turned by 180°, as it is for the gradient with respect to the input.
    """
    weight = (taps.flip(0) if flip else taps).float().contiguous().numpy()
    half, size, shape, zeros = x.dtype == torch.bfloat16, _size(x), _pair(kernel), _pair(before)
    source, target, out_size = x.data_ptr(), out.data_ptr(), _pair(out.shape[2:])

    def work(first: int, last: int) -> None:
        _correlate(source, half, size, weight, shape, stride, dilation, zeros, step, target, out_size, first, last)

    share_rows(work, x.shape[0] * -(-x.shape[1] // CHANNELS))


def weight_gradient(
    x: Tensor, gradient: Tensor, kernel: Sequence[int], stride: int, dilation: int, padding: Sequence[int]
) -> Tensor:
    """The gradient with respect to the weights.

    Args:
        x: the input ``(B, C, H, W)`` in channels-last memory, float32 or bfloat16.
        gradient: with respect to the output, ``(B, C, rows, columns)`` in channels-last memory, of the dtype of ``x``.
        kernel: kh, kw.
        stride: stride of the output.
        dilation: dilation of the kernel.
        padding: zeros above and to the left of the input.

    Returns:
        float32 ``(kh · kw, C)``.
    """
    result = torch.empty(kernel[0] * kernel[1], x.shape[1])
    array, half, size, shape, zeros = result.numpy(), x.dtype == torch.bfloat16, _size(x), _pair(kernel), _pair(padding)
    source, incoming, out_size = x.data_ptr(), gradient.data_ptr(), _pair(gradient.shape[2:])

    def work(first: int, last: int) -> None:
        _weight_gradient(source, half, size, incoming, out_size, shape, stride, dilation, zeros, array, first, last)

    share_rows(work, -(-x.shape[1] // CHANNELS))
    return result


def _size(x: Tensor) -> tuple[int, int, int, int]:
    return x.shape[0], x.shape[2], x.shape[3], x.shape[1]


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _copy_rows(
    source: int,
    half: bool,
    first_row: int,
    rows: int,
    columns: int,
    channels: int,
    channel: int,
    left: int,
    step: int,
    width: int,
    target: int,
) -> None:
    """Copy rows ``first_row`` on of ``(…, columns, channels)`` as float32 ``(rows, width, CHANNELS)``, column i at
    ``left + i · step``; what lies between and beside must be zero already.
    """
    for row in range(rows):
        for column in range(columns):
            place = left + column * step
            if place >= width:
                break
            here = ((first_row + row) * columns + column) * channels + channel
            there = (row * width + place) * CHANNELS
            if half:
                store(target, there, load_bfloat16(source, here))
                store(target, there + LANES, load_bfloat16(source, here + LANES))
            else:
                store(target, there, load(source, here))
                store(target, there + LANES, load(source, here + LANES))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _strip(rows_out: int, stride: int, reach: int, width: int) -> int:
    """How many output rows are computed from one copy of input rows."""
    fitting = (_ROOM // (width * CHANNELS) - reach) // stride
    return min(rows_out, max(fitting, reach + 1))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _correlate(
    x: int,
    half: bool,
    size: tuple[int, int, int, int],
    weight: Any,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    before: tuple[int, int],
    step: int,
    out: int,
    out_size: tuple[int, int],
    first: int,
    last: int,
) -> None:
    """Fill blocks ``first`` to ``last`` (of images times blocks of channels) of a convolution's result.

    Args are those of :func:`correlate`; ``half`` means bfloat16 (else float32), ``size`` is (B, H, W, C), ``weight`` is
    float32 ``(kh · kw, C)``, and ``last`` is not included.
    """
    _, height, width_in, channels = size
    rows_out, columns_out = out_size
    top, left = before
    blocks = -(-channels // CHANNELS)
    groups = -(-columns_out // _TOGETHER)
    width = (groups * _TOGETHER - 1) * stride + (kernel[1] - 1) * dilation + 1
    reach = (kernel[0] - 1) * dilation
    strip = _strip(rows_out, stride, reach, width)
    most = min(height, ((strip - 1) * stride + reach) // step + 2)
    rows_array = np.zeros(most * width * CHANNELS, np.float32)
    weights_array = np.empty(kernel[0] * kernel[1] * CHANNELS, np.float32)
    rows, weights = address(rows_array), address(weights_array)
    ahead = stride * CHANNELS
    for block in range(first, last):
        image, channel = block // blocks, min(block % blocks * CHANNELS, channels - CHANNELS)
        for tap in range(kernel[0] * kernel[1]):
            weights_array[tap * CHANNELS : (tap + 1) * CHANNELS] = weight[tap, channel : channel + CHANNELS]
        for begin in range(0, rows_out, strip):
            end = min(begin + strip, rows_out)
            low = min(max(0, -(-(begin * stride - top) // step)), height)
            high = max(min(height, ((end - 1) * stride + reach - top) // step + 1), low)
            _copy_rows(x, half, image * height + low, high - low, width_in, channels, channel, left, step, width, rows)
            for row in range(begin, end):
                for column in range(0, columns_out, _TOGETHER):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = spread(np.float32(0))
                    for i in range(kernel[0]):
                        place = row * stride + i * dilation - top
                        if place < 0 or place >= height * step or place % step != 0:
                            continue
                        p = ((place // step - low) * width + column * stride) * CHANNELS
                        w = i * kernel[1] * CHANNELS
                        for _ in range(kernel[1]):
                            wa, wb = load(weights, w), load(weights, w + LANES)
                            a0 = multiply_add(load(rows, p), wa, a0)
                            b0 = multiply_add(load(rows, p + LANES), wb, b0)
                            a1 = multiply_add(load(rows, p + ahead), wa, a1)
                            b1 = multiply_add(load(rows, p + ahead + LANES), wb, b1)
                            a2 = multiply_add(load(rows, p + 2 * ahead), wa, a2)
                            b2 = multiply_add(load(rows, p + 2 * ahead + LANES), wb, b2)
                            a3 = multiply_add(load(rows, p + 3 * ahead), wa, a3)
                            b3 = multiply_add(load(rows, p + 3 * ahead + LANES), wb, b3)
                            w += CHANNELS
                            p += dilation * CHANNELS
                    q = ((image * rows_out + row) * columns_out + column) * channels + channel
                    _put(out, half, q, a0, b0)
                    if column + 1 < columns_out:
                        _put(out, half, q + channels, a1, b1)
                    if column + 2 < columns_out:
                        _put(out, half, q + 2 * channels, a2, b2)
                    if column + 3 < columns_out:
                        _put(out, half, q + 3 * channels, a3, b3)
    # Addresses are good until the last line that names their arrays.
    rows_array[0] = weights_array[0]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put(target: int, half: bool, place: int, a: Any, b: Any) -> None:
    """Write the values of thirty-two channels."""
    if half:
        store_bfloat16(target, place, a)
        store_bfloat16(target, place + LANES, b)
    else:
        store(target, place, a)
        store(target, place + LANES, b)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _weight_gradient(
    x: int,
    half: bool,
    size: tuple[int, int, int, int],
    gradient: int,
    out_size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    before: tuple[int, int],
    result: Any,
    first: int,
    last: int,
) -> None:
    """Fill blocks ``first`` to ``last`` of channels of the gradient by the weights, float32 ``(kh · kw, C)``.

    Args are those of :func:`_correlate`; ``gradient`` is that of its output.
    """
    images, height, width_in, channels = size
    rows_out, columns_out = out_size
    top, left = before
    across = -(-columns_out // _TOGETHER) * _TOGETHER
    width = (across - 1) * stride + (kernel[1] - 1) * dilation + 1
    reach = (kernel[0] - 1) * dilation
    strip = _strip(rows_out, stride, reach, width)
    most = min(height, (strip - 1) * stride + reach + 1)
    rows_array = np.zeros(most * width * CHANNELS, np.float32)
    gradients_array = np.zeros(strip * across * CHANNELS, np.float32)
    sums_array = np.empty(kernel[0] * kernel[1] * CHANNELS, np.float32)
    rows, gradients, sums = address(rows_array), address(gradients_array), address(sums_array)
    ahead = stride * CHANNELS
    for block in range(first, last):
        channel = min(block * CHANNELS, channels - CHANNELS)
        sums_array[:] = 0
        for image in range(images):
            for begin in range(0, rows_out, strip):
                end = min(begin + strip, rows_out)
                low = min(max(0, begin * stride - top), height)
                high = max(min(height, (end - 1) * stride + reach - top + 1), low)
                _copy_rows(x, half, image * height + low, high - low, width_in, channels, channel, left, 1, width, rows)
                _copy_rows(
                    gradient,
                    half,
                    image * rows_out + begin,
                    end - begin,
                    columns_out,
                    channels,
                    channel,
                    0,
                    1,
                    across,
                    gradients,
                )
                for tap in range(kernel[0] * kernel[1]):
                    i, j = tap // kernel[1], tap % kernel[1]
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = spread(np.float32(0))
                    for row in range(begin, end):
                        place = row * stride + i * dilation - top
                        if place < 0 or place >= height:
                            continue
                        p = ((place - low) * width + j * dilation) * CHANNELS
                        g = (row - begin) * across * CHANNELS
                        for _ in range(0, across, _TOGETHER):
                            a0 = multiply_add(load(rows, p), load(gradients, g), a0)
                            b0 = multiply_add(load(rows, p + LANES), load(gradients, g + LANES), b0)
                            p, g = p + ahead, g + CHANNELS
                            a1 = multiply_add(load(rows, p), load(gradients, g), a1)
                            b1 = multiply_add(load(rows, p + LANES), load(gradients, g + LANES), b1)
                            p, g = p + ahead, g + CHANNELS
                            a2 = multiply_add(load(rows, p), load(gradients, g), a2)
                            b2 = multiply_add(load(rows, p + LANES), load(gradients, g + LANES), b2)
                            p, g = p + ahead, g + CHANNELS
                            a3 = multiply_add(load(rows, p), load(gradients, g), a3)
                            b3 = multiply_add(load(rows, p + LANES), load(gradients, g + LANES), b3)
                            p, g = p + ahead, g + CHANNELS
                    s = tap * CHANNELS
                    store(sums, s, add(load(sums, s), add(add(a0, a1), add(a2, a3))))
                    store(sums, s + LANES, add(load(sums, s + LANES), add(add(b0, b1), add(b2, b3))))
        for tap in range(kernel[0] * kernel[1]):
            result[tap, channel : channel + CHANNELS] = sums_array[tap * CHANNELS : (tap + 1) * CHANNELS]
    # Addresses are good until the last line that names their arrays.
    rows_array[0] = gradients_array[0]
