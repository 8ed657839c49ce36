"""From scores at network resolution to labels at the picture's own size, on any device and in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from atrous.models.geometry import Grid

_STRIP_VALUES = 1 << 24
"""How many full-size scores may exist at once away from the CPU: 64 MB in float32."""


def scores_to_labels(scores: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The best class of every pixel of each picture, without full-size scores.

    Args:
        scores: ``(B, C, h, w)``, floating, at network resolution; at most 255 classes.
        grid: where the positions of ``scores`` sit in the picture.
        size: height and width of the picture.

    Returns:
        uint8 ``(B, H, W)`` on the device of ``scores``; among equals the lowest class.
    """
    if scores.device.type != "cpu":
        return _in_strips(scores, grid, size)
    from atrous.kernels import labelmap  # numba is loaded when it is first needed

    arrays = scores.detach().float().contiguous().numpy()
    labels = np.empty((len(arrays), *size), np.uint8)
    for picture, array in zip(labels, arrays, strict=True):
        picture[:] = labelmap.scores_to_labels(array, grid.stride, grid.offset, size)
    return torch.from_numpy(labels)


def _in_strips(scores: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The same with torch alone: some rows of the picture at a time."""
    batch, classes, h, w = scores.shape
    height, width = size
    scores = scores.detach().float()
    above, below, down = _taps(h, grid, height, scores)
    left, right, across = _taps(w, grid, width, scores)
    labels = torch.empty(batch, height, width, dtype=torch.uint8, device=scores.device)
    strip = max(1, _STRIP_VALUES // max(1, batch * classes * width))
    for start in range(0, height, strip):
        rows = slice(start, start + strip)
        mixed = torch.lerp(scores[:, :, above[rows]], scores[:, :, below[rows]], down[rows, None])  # (B, C, strip, w)
        labels[:, rows] = torch.lerp(mixed[..., left], mixed[..., right], across).argmax(dim=1)
    return labels


def _taps(length: int, grid: Grid, size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel along one axis: the positions before and after it, and the share of the latter."""
    place = ((torch.arange(size, dtype=torch.float64) - grid.offset) / grid.stride).clamp(0, length - 1)
    before = place.floor().clamp(max=max(length - 2, 0)).long()
    after = (before + 1).clamp(max=length - 1)
    return before.to(like.device), after.to(like.device), (place - before).to(like)
