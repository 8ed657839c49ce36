"""Depthwise convolution on channels-last maps, and its gradients: one small kernel per channel, dilated at will.

torch's CPU library has no fast code for most of these: dilated ones, and all gradients by weights of 5×5 kernels, take
ten to thirty times as long as the arithmetic needs. :func:`depthwise_reference` is the same in plain torch.

Thirty-two channels at a time are copied to float32 rows that are zero where the padding is and lie in cache; there
every output is a sum without a single test. Rows of the padding are left out. Arrays are addresses of contiguous
memory ``(B, H, W, C)``, bfloat16 or float32, C at least :data:`CHANNELS`; blocks of channels overlap at the end where C
is no multiple.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from atrous.ops.simd import LANES, add, address, load, load_bfloat16, multiply_add, spread, store, store_bfloat16

CHANNELS = 2 * LANES
"""Channels that are computed together."""
_TOGETHER = 4
"""Neighbouring outputs that are computed together: each weight is loaded once for all of them."""
_ROOM = 1 << 17
"""Floats of cache that the rows of a block may take (half of a usual second-level cache)."""


def depthwise_reference(x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int) -> Tensor:
    """The convolution of each channel of ``(B, C, H, W)`` with its kernel of ``(C, 1, kh, kw)``, by torch."""
    return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])


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
def correlate(
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

    Args:
        x: input ``(B, H, W, C)``.
        half: input and output are bfloat16, else float32.
        size: B, H, W, C.
        weight: float32 ``(kh · kw, C)``.
        kernel: kh, kw.
        stride: of the output.
        dilation: of the kernel.
        before: zeros above and to the left of the input.
        step: the input's positions lie so far apart, with zeros between them (2 for the gradient of a stride of 2).
        out: output ``(B, *out_size, C)``.
        out_size: its rows and columns.
        first: block to begin with.
        last: block to end before.
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
def weight_gradient(
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

    Args are those of :func:`correlate`; ``gradient`` is that of its output.
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
