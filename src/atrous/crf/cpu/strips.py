"""An image's lattices for the compiled mean field: built strip by strip, with the tables between two passes.

Each strip of pixels has its own numbers for the corners it needs, and rows of its own for them while it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.cpu import lattice_kernels as crf_lattice
from atrous.crf.cpu import mean_field_kernels as crf_mean_field
from atrous.crf.lattice import directions, gain, key_strides, scale_factors
from atrous.crf.mean_field import Normalization
from atrous.ops.simd import LANES
from atrous.ops.workers import Workers

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Keys = NDArray[np.int64]

_STRIP = 1 << 10
"""Runs of sixteen pixels in a strip, at least: the rows of its corners nearly go into a second-level cache."""
_STRIP_HEIGHT = 32
"""Rows of the image in a strip, at least: thinner ones would share too many corners."""


@dataclass(frozen=True)
class Strip:
    """Some runs of pixels, and how many corners they have in each lattice; the lattices' rows follow each other."""

    first: int
    last: int
    counts: tuple[int, ...]

    def rows(self, width: int) -> Floats:
        """Room for the rows of its corners, so many floats each."""
        return aligned(sum(self.counts) * width)


class StripLattice:
    """One kernel's lattice over all strips.

    Attributes:
        neighbours: int32 ``(d+1, 2, M)``, as in :class:`atrous.crf.lattice.Lattice`.
        numbers: the corners of each strip.
        gain: what sliced values are multiplied with.
    """

    def __init__(self, keys: Sequence[Keys], strides: list[int]) -> None:
        different, table, numbers = crf_lattice.number_corners(np.concatenate(keys))
        self.neighbours = np.empty((len(strides) + 1, 2, len(different)), np.int32)
        for direction, step in zip(self.neighbours, directions(strides), strict=True):
            crf_lattice.find_neighbours(different, table, step, direction)
        self.numbers = np.split(numbers, np.cumsum([len(k) for k in keys[:-1]]))
        self.gain = gain(len(strides))

    def size(self, width: int) -> int:
        """Floats of a table ``(width / 16, M + 1, 16)``, the last row of which is for no corner."""
        return (self.neighbours.shape[2] + 1) * width


class Strips:
    """An image's pixels in strips, and the lattices of some kernels over them.

    Attributes:
        strips: of some ten thousand pixels each, whatever the number of threads.
        lattices: one for each kernel.
        rows: corners that a pixel has in all lattices.
        corners: int32, flat ``(N / 16, rows, 16)``: where in the strip's part of a table the corner's row begins.
        slice_weights: float32, likewise; barycentric weights times what the normalisation asks for.
        splat_weights: likewise, the same array where both are the same.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        size: Sequence[int],
        width: int,
        normalization: Normalization,
        workers: Workers,
    ) -> None:
        ends = [points.shape[1] + 1 for points in features]
        self.rows = sum(ends)
        self._row_of = np.cumsum([0, *ends]).tolist()
        self.pixels = math.prod(size)
        self.runs = -(-self.pixels // LANES)
        self._length = max(_STRIP, _STRIP_HEIGHT * size[-1] // LANES)
        corners = self.runs * LANES * self.rows
        self.corners, self.slice_weights = np.empty(corners, np.int32), aligned(corners)
        strides = [key_strides(points) for points in features]
        keys = self._find_corners(features, strides, workers)

        built: dict[int, StripLattice] = {}

        def number(i: int) -> None:
            built[i] = StripLattice([strip[i] for strip in keys], strides[i])

        workers(number, sorted(range(len(features)), key=lambda i: -ends[i]))
        self.lattices = [built[i] for i in range(len(features))]
        self.splat_weights = self.slice_weights
        if normalization != "none":
            self._normalise(normalization, workers)
        self.corners *= width

    def _find_corners(self, features: Sequence[Tensor], strides: list[list[int]], workers: Workers) -> list[list[Keys]]:
        """Fill in corners and barycentric weights; find the strips, and the keys of their corners in each lattice."""
        firsts = range(0, self.runs, self._length)
        lasts = [min(first + self._length, self.runs) for first in firsts]
        keys: list[list[Keys]] = [[] for _ in firsts]

        def find(number: int) -> None:
            for i, points in enumerate(features):
                axes = len(strides[i])
                found = crf_lattice.find_corners(
                    _runs(points, firsts[number], lasts[number]),
                    axes,
                    firsts[number],
                    lasts[number],
                    np.array(scale_factors(axes), np.float32),
                    np.array(strides[i]),
                    self._row_of[i],
                    self.rows,
                    sum(map(len, keys[number])),
                    self.slice_weights,
                    self.corners,
                )
                keys[number].append(found)

        workers(find, range(len(firsts)))
        ends = zip(firsts, lasts, keys, strict=True)
        self.strips = [Strip(first, last, tuple(map(len, found))) for first, last, found in ends]
        return keys

    def _normalise(self, normalization: Normalization, workers: Workers) -> None:
        """Give each weight its part in the power of K(1) that the normalisation asks for."""
        tables, numbers = Tables(self, LANES), range(len(self.strips))
        weights = self.slice_weights if normalization == "symmetric" else self.slice_weights.copy()

        def splat(number: int) -> Floats:
            strip = self.strips[number]
            ones = strip.rows(LANES)
            points = (self.pixels, strip.first, strip.last, self.rows, self.corners, self.slice_weights)
            crf_mean_field.splat_ones(*points, ones)
            return ones

        def multiply(number: int) -> None:
            strip = self.strips[number]
            sums = tables.gather(number, [np.ones(LANES, np.float32) for _ in self.lattices])
            for i, lattice in enumerate(self.lattices):
                crf_mean_field.normalise(
                    strip.first,
                    strip.last,
                    self.rows,
                    self._row_of[i],
                    self._row_of[i + 1],
                    self.corners,
                    sums,
                    lattice.gain,
                    normalization == "symmetric",
                    weights,
                )

        workers.in_order(splat, tables.collect, numbers)
        tables.blur(workers)
        workers(multiply, numbers)
        if normalization == "before":
            self.splat_weights = weights
        elif normalization == "after":
            self.slice_weights = weights


class Tables:
    """How strips exchange what they splat: rows of W floats for all corners, in two tables for each lattice.

    A table is ``(W / 16, M + 1, 16)``, with zeros in the last row.

    Attributes:
        splatted: what strips are collected in.
        blurred: what they gather from.
    """

    def __init__(self, strips: Strips, width: int) -> None:
        self._strips, self._width = strips, width
        sizes = [lattice.size(width) for lattice in strips.lattices]
        self.splatted, self.blurred = [aligned(n) for n in sizes], [aligned(n) for n in sizes]
        for table in self.splatted:
            table[:] = 0

    def collect(self, number: int, rows: Floats) -> None:
        """Add a strip's rows to those of the strips before it."""
        for i, numbers, part in self._parts(number, rows):
            size = self._strips.lattices[i].size(LANES)
            crf_mean_field.collect(part, numbers, self._width, self.splatted[i], size)

    def blur(self, workers: Workers) -> None:
        """Blur what has been collected, and begin anew."""
        lattices = self._strips.lattices

        def blur(place: tuple[int, int]) -> None:
            i, vector = place
            size = lattices[i].size(LANES)
            part = slice(vector * size, (vector + 1) * size)
            crf_mean_field.blur(lattices[i].neighbours, self.splatted[i][part], self.blurred[i][part])

        # The largest first, so that no thread is left with it at the end.
        workers(blur, [(i, v) for i in reversed(range(len(lattices))) for v in range(self._width // LANES)])
        for i, lattice in enumerate(lattices):
            if len(lattice.neighbours) % 2 == 0:
                self.splatted[i], self.blurred[i] = self.blurred[i], self.splatted[i]

    def gather(self, number: int, scales: Sequence[Floats]) -> Floats:
        """A strip's rows, times factors ``(W,)`` for each lattice."""
        rows = self._strips.strips[number].rows(self._width)
        for i, numbers, part in self._parts(number, rows):
            crf_mean_field.gather(self.blurred[i], self._strips.lattices[i].size(LANES), numbers, scales[i], part)
        return rows

    def _parts(self, number: int, rows: Floats) -> Iterator[tuple[int, Ids, Floats]]:
        """Each lattice's corners in a strip, and their part of its rows."""
        begin = 0
        for i, lattice in enumerate(self._strips.lattices):
            end = begin + len(lattice.numbers[number]) * self._width
            yield i, lattice.numbers[number], rows[begin:end]
            begin = end


def aligned(size: int) -> Floats:
    """Room for some floats that begins where a cache line does, as rows then do."""
    room = np.empty(size + LANES, np.float32)
    start = -room.ctypes.data % (4 * LANES) // 4
    return room[start : start + size]


def _runs(features: Tensor, first: int, last: int) -> Floats:
    """Some runs' features ``(d, N)``, flat, with the last point again until N is an integer of vectors."""
    points = features[first * LANES : last * LANES].numpy().T
    more = (last - first) * LANES - points.shape[1]
    if more:
        points = np.pad(points, ((0, 0), (0, more)), mode="edge")
    return np.ascontiguousarray(points, np.float32).reshape(-1)
