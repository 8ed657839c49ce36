"""Losses over logits at the picture's own size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from atrous.labels import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Softmax cross entropy, averaged over the pixels that are judged; zero where none is (SPEC §7.2).

    Args:
        logits: ``(B, C, H, W)``; computed in float32 whatever they come in.
        labels: uint8 or int64 ``(B, H, W)``, 255 ignored.
        pixels: how many pixels are judged, an integer scalar, where these are a part of a larger batch.

    Returns:
        A float32 scalar.
    """
    total = F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="sum")
    return total / (judged_pixels(labels) if pixels is None else pixels).clamp(min=1)


def judged_pixels(labels: Tensor) -> Tensor:
    """How many pixels of labels are not 255, an int64 scalar."""
    return (labels != IGNORE).sum()
