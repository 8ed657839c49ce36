"""Geodesic distances on a CPU: how far a pixel is along paths through the image, where a change of colour is far."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.ops.workers import share_rows

Floats = NDArray[np.float32]

_PASSES = 2
"""Times that distances are swept over the image forwards and backwards; paths that turn more often stay too long."""


def geodesic_distances(features: Floats, sources: list[NDArray[np.bool_]], per_pixel: float) -> Floats:
    """The distance of each pixel to the nearest pixel of each source.

    Args:
        features: ``(H, W, channels)``; a step between neighbours costs the distance of their features ...
        sources: ``(H, W)`` each.
        per_pixel: ... and, squared with it, this much for each pixel's width.

    Returns:
        float32 ``(sources, H, W)``; infinite for a source without pixels.
    """
    costs = np.full((4, *features.shape[:2]), np.inf, np.float32)
    share_rows(lambda first, last: _measure_steps(features, per_pixel, costs, first, last), len(features))
    distances = np.stack([np.where(source, np.float32(0), np.float32(np.inf)) for source in sources])

    def spread(first: int, last: int) -> None:
        for distance in distances[first:last]:
            _spread(costs, distance, _PASSES)

    share_rows(spread, len(distances))
    return distances


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _measure_steps(features: Floats, per_pixel: float, costs: Floats, first: int, last: int) -> None:
    """The costs of the steps to some rows' pixels, from the left, the upper left, above and the upper right."""
    width, channels = features.shape[1], features.shape[2]
    for y in range(first, last):
        for x in range(width):
            for step in range(4):
                v = y if step == 0 else y - 1
                u = x - 1 if step < 2 else x + step - 2
                if v < 0 or u < 0 or u >= width:
                    continue
                total = per_pixel * per_pixel * (2 if step % 2 else 1)
                for c in range(channels):
                    change = features[y, x, c] - features[v, u, c]
                    total += change * change
                costs[step, y, x] = math.sqrt(total)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _spread(costs: Floats, distance: Floats, passes: int) -> None:
    """Shorten distances over the steps between neighbours, down the image and up again."""
    height, width = distance.shape
    for _ in range(passes):
        for y in range(height):
            for x in range(width):
                best = distance[y, x]
                if x > 0:
                    best = min(best, distance[y, x - 1] + costs[0, y, x])
                if y > 0:
                    best = min(best, distance[y - 1, x] + costs[2, y, x])
                    if x > 0:
                        best = min(best, distance[y - 1, x - 1] + costs[1, y, x])
                    if x + 1 < width:
                        best = min(best, distance[y - 1, x + 1] + costs[3, y, x])
                distance[y, x] = best
        for y in range(height - 1, -1, -1):
            for x in range(width - 1, -1, -1):
                best = distance[y, x]
                if x + 1 < width:
                    best = min(best, distance[y, x + 1] + costs[0, y, x + 1])
                if y + 1 < height:
                    best = min(best, distance[y + 1, x] + costs[2, y + 1, x])
                    if x + 1 < width:
                        best = min(best, distance[y + 1, x + 1] + costs[1, y + 1, x + 1])
                    if x > 0:
                        best = min(best, distance[y + 1, x - 1] + costs[3, y + 1, x - 1])
                distance[y, x] = best
