"""From coarse logits to labels at the image's own size, on any device and in bounded memory.

Between the positions at which the network computed them, logits are bilinear. No full-size logits are made: on a CPU
(:mod:`atrous.ops.labelmap.cpu`) and on a GPU with Triton (:mod:`atrous.ops.labelmap.triton_kernels`) kernels find the
best class of each pixel directly; other devices compute some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atrous.errors import InputError, InputTypeError
from atrous.grid import PIXELS, Grid, Grids, resample
from atrous.labels import IGNORE, WIDE_IGNORE
from atrous.ops.devices import has_triton

_STRIP_VALUES = 1 << 24
"""How many full-size logits may exist at once: 64 MB in float32."""


def logits_to_labels(logits: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    """The best class of every pixel of each image.

    Args:
        logits: floating ``(B, C, h, w)`` at network resolution, finite, 1 to 65,535 classes. Beyond their outermost
            positions they are constant.
        grid: where the positions of ``logits`` sit in the image; two grids where rows and columns differ.
        size: height and width of the image.

    Returns:
        uint8 ``(B, H, W)`` on the device of ``logits``, or uint16 for more than 255 classes; the lowest class among
        equals.

    Raises:
        InputTypeError: ``logits`` are not floating.
        InputError: there are no classes or positions, or too many classes.
    """
    _check(logits)
    logits = logits.detach()
    if has_triton(logits.device):
        from atrous.ops.labelmap import triton_kernels  # Triton is loaded when it is first needed

        return triton_kernels.logits_to_labels(logits, grid, size)
    if logits.device.type == "cpu":
        from atrous.ops.labelmap import cpu  # numba is loaded when it is first needed

        return cpu.logits_to_labels(logits, grid, size)
    single = logits.float()
    return labels_in_strips(lambda rows, strip: resample(single, grid, (rows, PIXELS), strip), single, size)


def logits_to_labels_reference(logits: Tensor, grid: Grids, size: tuple[int, int]) -> Tensor:
    """What :func:`logits_to_labels` computes, in plain torch: full-size logits in double precision, then argmax."""
    _check(logits)
    return resample(logits.detach().double(), grid, PIXELS, size).argmax(1).to(label_dtype(logits))


def labels_in_strips(
    sample: Callable[[Grid, tuple[int, int]], Tensor], logits: Tensor, size: tuple[int, int]
) -> Tensor:
    """The best class of every pixel, from full-size logits of some rows at a time.

    Args:
        sample: given the grid of the rows to sample and the size of their strip, returns full-size logits
            ``(B, C, rows, W)``.
        logits: ``(B, C, h, w)``; only their shape and device are used.
        size: height and width of the image.

    Returns:
        uint8 or uint16 ``(B, H, W)``; the lowest class among equals.
    """
    height, width = size
    labels = torch.empty(len(logits), height, width, dtype=label_dtype(logits), device=logits.device)
    strip = strip_rows(logits, width)
    for start in range(0, height, strip):
        count = min(strip, height - start)
        labels[:, start : start + count] = sample(Grid(1, start), (count, width)).argmax(1)
    return labels


def label_dtype(logits: Tensor) -> torch.dtype:
    """Of the labels of logits ``(B, C, h, w)``: uint8, or uint16 for more than 255 classes."""
    return torch.uint8 if logits.shape[1] <= IGNORE else torch.uint16


def strip_rows(logits: Tensor, width: int) -> int:
    """How many rows of full-size logits ``(B, C, rows, width)`` may exist at once."""
    batch, classes = logits.shape[:2]
    return max(1, _STRIP_VALUES // max(1, batch * classes * width))


def _check(logits: Tensor) -> None:
    if not logits.is_floating_point():
        raise InputTypeError(f"logits must be floating, not {logits.dtype}")
    if logits.ndim != 4 or 0 in logits.shape[1:] or logits.shape[1] > WIDE_IGNORE:
        raise InputError(
            f"logits must be (batch, classes, rows, columns), 1 to {WIDE_IGNORE} classes and at least one position, "
            f"not {tuple(logits.shape)}"
        )
