"""From scores at network resolution to labels at the image's own size, on any device and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from atrous.grid import PIXELS, Grid, resample
from atrous.ops.devices import has_triton

_STRIP_VALUES = 1 << 24
"""How many full-size scores may exist at once away from the CPU: 64 MB in float32."""


def logits_to_labels(scores: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The best class of every pixel of each image, without full-size scores.

    Args:
        scores: ``(B, C, h, w)``, floating, at network resolution; at most 255 classes.
        grid: where the positions of ``scores`` sit in the image.
        size: height and width of the image.

    Returns:
        uint8 ``(B, H, W)`` on the device of ``scores``; among equals the lowest class.
    """
    if has_triton(scores.device):
        from atrous.ops.labelmap import triton_kernels as labelmap_gpu  # Triton is loaded when it is first needed

        lengths = zip(size, scores.shape[2:], strict=True)
        return labelmap_gpu.logits_to_labels(
            scores.detach(), *(_neighbours(grid, n, length, scores.device) for n, length in lengths)
        )
    if scores.device.type != "cpu":
        detached = scores.detach().float()
        return in_strips(lambda rows, strip: resample(detached, grid, (rows, PIXELS), strip), detached, size)
    from atrous.ops.labelmap import cpu as labelmap  # numba is loaded when it is first needed

    arrays = scores.detach().float().contiguous().numpy()
    labels = np.empty((len(arrays), *size), np.uint8)
    for image, array in zip(labels, arrays, strict=True):
        image[:] = labelmap.logits_to_labels(array, grid.stride, grid.offset, size)
    return torch.from_numpy(labels)


def _neighbours(grid: Grid, size: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of ``size`` pixels of a side the position of ``length`` before it, int32, and the share of the next,
    float32; both ``(size,)``.
    """
    places = (torch.arange(size, dtype=torch.float64, device=device) - grid.offset) / grid.stride
    places = places.clamp(0, length - 1)
    before = places.floor()
    return before.int(), (places - before).float()


def in_strips(sample: Callable[[Grid, tuple[int, int]], Tensor], scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The best class of every pixel, from full-size scores of some rows at a time.

    Args:
        sample: the rows to sample at and their size → full-size scores ``(B, C, rows, W)``.
        scores: ``(B, C, h, w)``, to know how many there are, and where.
        size: height and width of the image.

    Returns:
        uint8 ``(B, H, W)``; among equals the lowest class.
    """
    batch, classes = scores.shape[:2]
    height, width = size
    labels = torch.empty(batch, height, width, dtype=torch.uint8, device=scores.device)
    strip = max(1, _STRIP_VALUES // max(1, batch * classes * width))
    for start in range(0, height, strip):
        count = min(strip, height - start)
        labels[:, start : start + count] = sample(Grid(1, start), (count, width)).argmax(1)
    return labels
