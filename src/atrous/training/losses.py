"""Losses over logits at the picture's own size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from atrous.labels import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross entropy, averaged over the pixels that are judged; zero where none is (SPEC §7.2).

    Args:
        logits: ``(B, C, H, W)``; computed in float32 whatever they come in.
        labels: uint8 or int64 ``(B, H, W)``, 255 ignored.

    Returns:
        A float32 scalar.
    """
    labels = labels.long()
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)
