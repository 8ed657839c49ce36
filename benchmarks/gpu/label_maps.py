"""Coarse logits to labels of the image's size, in both memory formats, beside interpolation and argmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.grid import Grid
from atrous.ops.labelmap.op import logits_to_labels
from benchmarks._images import SEED
from benchmarks.gpu._measure import Measured, Rows, Sizes, attempt, measured

CLASSES, STRIDE = 19, 4
GRID = Grid(STRIDE, (STRIDE - 1) / 2)  # where half-pixel resizing puts the positions, so both do the same
FORMATS = {"": torch.contiguous_format, ", channels-last": torch.channels_last}
Work = Callable[[Tensor, tuple[int, int]], Tensor]


def interpolate_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The usual way."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1).to(torch.uint8)


def ours(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Our kernel."""
    return logits_to_labels(logits, GRID, size)


def rows(device: torch.device, sizes: Sizes) -> Rows:
    """Both, in both memory formats."""
    height, width = sizes.labels
    coarse = torch.randn(1, CLASSES, 8, 16, generator=torch.Generator().manual_seed(SEED))
    logits = F.interpolate(coarse.to(device), (height // STRIDE, width // STRIDE), mode="bicubic")
    for form, memory_format in FORMATS.items():
        given = logits.contiguous(memory_format=memory_format)
        for who, work in (("logits_to_labels", ours), ("interpolate + argmax", interpolate_argmax)):
            name = f"{who}, {CLASSES}×{height // STRIDE}×{width // STRIDE} → {height}×{width}{form}"
            yield attempt(name, partial(label_map, name, work, given, sizes.labels, device))


def label_map(name: str, work: Work, logits: Tensor, size: tuple[int, int], device: torch.device) -> Measured:
    """The labels of one image, compared with the usual way's."""
    different = int((work(logits, size) != interpolate_argmax(logits.contiguous(), size)).sum())
    return replace(measured(name, partial(work, logits, size), device), remarks=f"{different} labels differ")
