"""Fitting a few layers to one image, so that what remains is what a network cannot draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from atrous.grid import PIXELS, resample
from atrous.labels import Mask
from atrous.models.base import HeadResult


def fit(
    parameters: Iterable[nn.Parameter], head: Callable[[], HeadResult], truth: Mask, steps: int, rate: float
) -> Mask:
    """Train parameters with Adam on the labels of one image, at its own size; return the labels at the end."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    target = torch.from_numpy(truth.astype(np.int64))[None]
    for _ in range(steps):
        result = head()
        loss = F.cross_entropy(resample(result.logits, result.grid, PIXELS, truth.shape), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return labels_of(head(), truth.shape)


def labels_of(result: HeadResult, size: tuple[int, ...]) -> Mask:
    """The labels of one image."""
    with torch.no_grad():
        best = resample(result.logits, result.grid, PIXELS, (size[0], size[1])).argmax(1)[0]
    return np.asarray(best.numpy(), np.uint8)
