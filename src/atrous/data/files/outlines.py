"""From pixels to outlines: the polygons along the edges of pixels, with their holes, which give back every pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.int64]
"""The corners ``(N, 2)`` of a ring, x and y, on the corners of pixels."""


class Outline(NamedTuple):
    """An outer ring, and the rings of the holes in it."""

    outer: Corners
    holes: tuple[Corners, ...] = ()


def outlines_of(inside: NDArray[np.bool_]) -> list[Outline]:
    """The outlines of an object ``(H, W)``: one for each part whose pixels share edges.

    Filled by the even-odd rule at pixel centres (:mod:`atrous.data.files.rasterise`), they give the same pixels again.
    """
    rings = list(_rings(inside))
    _, parts = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    outers: dict[int, Corners] = {}
    holes: dict[int, list[Corners]] = {}
    for ring in rings:
        x, y = min(ring.tolist(), key=lambda corner: (corner[1], corner[0]))
        if inside[y, x]:
            outers[parts[y, x]] = ring
        else:  # the part that the hole is in lies above its upper edge
            holes.setdefault(parts[y - 1, x], []).append(ring)
    return [Outline(ring, tuple(holes.get(part, ()))) for part, ring in outers.items()]


def _rings(inside: NDArray[np.bool_]) -> Iterator[Corners]:
    """The rings between inside and outside. On every row and column of the grid, corners are the ends of edges in turn;
    where two parts touch in a corner, it is a corner of both.
    """
    padded = np.pad(inside, 1).astype(np.int8)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    odd = (a ^ b ^ c ^ d) == 1
    touching = (a == d) & (b == c) & (a != b)
    count = odd + 2 * touching
    y, x = (np.repeat(axis, count[odd | touching]) for axis in np.nonzero(odd | touching))
    second = np.zeros(len(x), np.bool_)  # of the two corners in one place, the one of the edge to the right
    second[1:] = (x[1:] == x[:-1]) & (y[1:] == y[:-1])
    lower = np.where(a[y, x] == 1, second, ~second) & touching[y, x]  # with the edge downwards
    along_row = np.arange(len(x)) ^ 1  # they are in the order of rows
    down = np.lexsort((lower, y, x))
    along_column = np.empty_like(down)
    along_column[down] = down[np.arange(len(x)) ^ 1]
    return _cycles(np.stack([x, y], 1), along_row, along_column)


def _cycles(corners: Corners, along_row: Corners, along_column: Corners) -> Iterator[Corners]:
    rows, columns = along_row.tolist(), along_column.tolist()
    seen = [False] * len(rows)
    for first in range(len(rows)):
        ring, at = [], first
        while not seen[at]:
            seen[at] = seen[rows[at]] = True
            ring += [at, rows[at]]
            at = columns[rows[at]]
        if ring:
            yield corners[ring]


def keyhole(outline: Outline) -> Corners:
    """One ring ``(N, 2)`` of an outline with holes, each joined to what is around it by a cut of no width.

    Filled by the even-odd rule at pixel centres, it gives the same pixels, since a cut is passed in both directions.
    """
    ring = outline.outer
    for hole in sorted(outline.holes, key=lambda hole: hole[:, 0].min()):
        corner = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])  # its leftmost; the cut leads to a corner near it
        to = int(np.abs(ring - hole[corner]).sum(1).argmin())
        there = np.concatenate([hole[corner:], hole[: corner + 1]])
        ring = np.concatenate([ring[: to + 1], there, ring[to:]])
    return ring
