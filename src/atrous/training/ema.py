"""The exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

import math

import torch
from torch import nn


def warmup_steps(decay: float) -> int:
    """The number of steps until :func:`update_ema` uses the full decay."""
    return max(0, math.ceil((10 * decay - 1) / (1 - decay)))


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights and buffers towards the model's; integer buffers are copied.

    In early steps the decay is smaller, ``(1 + step) / (10 + step)``, so that the average forgets the initial weights.
    """
    # Not torch's AveragedModel: its first update copies the weights, it averages integer buffers, and a decay that
    # depends on its step counter would make the host wait for the GPU.
    share = 1 - min(decay, (1 + step) / (10 + step))
    # One kernel for many tensors: on a GPU, launching one for each would take longer than the arithmetic.
    averaged, current = ([*net.parameters(), *net.buffers()] for net in (average, model))
    pairs = list(zip(averaged, current, strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [t for _, t in floats], share)
    if counts := [pair for pair in pairs if not pair[0].is_floating_point()]:
        torch._foreach_copy_([a for a, _ in counts], [t for _, t in counts])
