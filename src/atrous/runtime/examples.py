"""Images to try a runtime on: always the same, of several sizes, and no photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHAPES = ((1, 257, 321), (2, 375, 500), (1, 512, 512))
"""Images of each batch, height and width: sizes that fit a network's strides, and sizes that don't."""


def example_batches(channels: int) -> list[NDArray[np.uint8]]:
    """Smooth waves of colour with a little noise.

    Returns:
        uint8 ``(N, H, W, channels)`` of :data:`SHAPES`.
    """
    random = np.random.default_rng(0)
    return [np.stack([_draw(random, height, width, channels) for _ in range(n)]) for n, height, width in SHAPES]


def _draw(random: np.random.Generator, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width] / 100.0
    image = random.normal(128, 8, (height, width, channels))
    for channel in range(channels):
        for down, across, start in random.uniform(-3, 3, (6, 3)):
            image[..., channel] += 30 * np.sin(down * y + across * x + start)
    return image.clip(0, 255).astype(np.uint8)
