"""The lattices of an image for the compiled mean field, built strip by strip, and the tables between two passes.

Each strip of pixels has its own numbering of the corners it needs, and its own rows for them while it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.cpu import lattice_kernels, mean_field_kernels
from atrous.crf.lattice import directions, gain, key_strides, scale_factors
from atrous.crf.mean_field import Normalization, Pairwise
from atrous.ops.simd import LANES
from atrous.ops.workers import Workers

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Keys = NDArray[np.int64]

_STRIP = 1 << 10
"""Least number of runs of sixteen pixels in a strip: the rows of its corners nearly fit a second-level cache."""
_STRIP_HEIGHT = 32
"""Least number of image rows in a strip: thinner strips would share too many corners."""


@dataclass(frozen=True)
class Strip:
    """Some runs of pixels, and the number of their corners in each lattice; rows are in the order of the lattices."""

    first: int
    last: int
    counts: tuple[int, ...]

    def rows(self, width: int) -> Floats:
        """Uninitialised rows of ``width`` floats for its corners."""
        return aligned(sum(self.counts) * width)


class StripLattice:
    """One kernel's lattice over all strips.

    Attributes:
        neighbours: int32 ``(d+1, 2, M)``, as in :class:`atrous.crf.lattice.Lattice`.
        numbers: the indices of each strip's corners.
        gain: the factor of sliced values.
    """

    def __init__(self, keys: Sequence[Keys], strides: list[int]) -> None:
        different, table, numbers = lattice_kernels.number_corners(np.concatenate(keys))
        self.neighbours = np.empty((len(strides) + 1, 2, len(different)), np.int32)
        for direction, step in zip(self.neighbours, directions(strides), strict=True):
            lattice_kernels.find_neighbours(different, table, step, direction)
        self.numbers = np.split(numbers, np.cumsum([len(k) for k in keys[:-1]]))
        self.gain = gain(len(strides))

    def size(self, width: int) -> int:
        """Number of floats of a table ``(width / 16, M + 1, 16)``, whose last row is for no corner."""
        return (self.neighbours.shape[2] + 1) * width


class Strips:
    """The pixels of an image in strips, and the lattices of some kernels over them.

    Attributes:
        strips: of some ten thousand pixels each, whatever the number of threads.
        lattices: one for each kernel.
        rows: number of a pixel's corners in all lattices.
        corners: int32, flat ``(N / 16, rows, 16)``: where the corner's row begins in the strip's part of a table.
        slice_weights: float32, likewise: barycentric weights times the normalisation.
        splat_weights: likewise; the same array if both are equal.
    """

    def __init__(
        self,
        pairwise: Sequence[Pairwise],
        size: Sequence[int],
        width: int,
        workers: Workers,
    ) -> None:
        features = [p.features for p in pairwise]
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
        normalizations = [p.normalization for p in pairwise]
        if set(normalizations) != {"none"}:
            self._normalise(normalizations, workers)
        self.corners *= width

    def _find_corners(self, features: Sequence[Tensor], strides: list[list[int]], workers: Workers) -> list[list[Keys]]:
        """Compute corners, barycentric weights and strips; return the keys of each strip's corners in each lattice."""
        firsts = range(0, self.runs, self._length)
        lasts = [min(first + self._length, self.runs) for first in firsts]
        keys: list[list[Keys]] = [[] for _ in firsts]

        def find(number: int) -> None:
            for i, points in enumerate(features):
                axes = len(strides[i])
                found = lattice_kernels.find_corners(
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

    def _normalise(self, normalizations: Sequence[Normalization], workers: Workers) -> None:
        """Multiply the weights of each kernel with the power of K(1) of its normalisation."""
        tables, numbers = Tables(self, LANES), range(len(self.strips))
        one_sided = {"before", "after"}.intersection(normalizations)
        self.splat_weights = splatted = self.slice_weights.copy() if one_sided else self.slice_weights
        weights = {"symmetric": [self.slice_weights], "after": [self.slice_weights], "before": [splatted], "none": []}
        if one_sided:
            weights["symmetric"].append(splatted)

        def splat(number: int) -> Floats:
            strip = self.strips[number]
            ones = strip.rows(LANES)
            points = (self.pixels, strip.first, strip.last, self.rows, self.corners, self.slice_weights)
            mean_field_kernels.splat_ones(*points, ones)
            return ones

        def multiply(number: int) -> None:
            strip = self.strips[number]
            sums = tables.gather(number, [np.ones(LANES, np.float32) for _ in self.lattices])
            for i, (lattice, normalization) in enumerate(zip(self.lattices, normalizations, strict=True)):
                for side in weights[normalization]:
                    mean_field_kernels.normalise(
                        strip.first,
                        strip.last,
                        self.rows,
                        self._row_of[i],
                        self._row_of[i + 1],
                        self.corners,
                        sums,
                        lattice.gain,
                        normalization == "symmetric",
                        side,
                    )

        workers.in_order(splat, tables.collect, numbers)
        tables.blur(workers)
        workers(multiply, numbers)


class Tables:
    """The exchange between strips: rows of W floats for all corners, in two tables for each lattice.

    A table is ``(W / 16, M + 1, 16)``, with zeros in the last row.

    Attributes:
        splatted: the tables to which strips add.
        blurred: the tables from which strips gather.
    """

    def __init__(self, strips: Strips, width: int) -> None:
        self._strips, self._width = strips, width
        sizes = [lattice.size(width) for lattice in strips.lattices]
        self.splatted, self.blurred = [aligned(n) for n in sizes], [aligned(n) for n in sizes]
        for table in self.splatted:
            table[:] = 0

    def collect(self, number: int, rows: Floats) -> None:
        """Add a strip's rows to the tables."""
        for i, numbers, part in self._parts(number, rows):
            size = self._strips.lattices[i].size(LANES)
            mean_field_kernels.collect(part, numbers, self._width, self.splatted[i], size)

    def blur(self, workers: Workers) -> None:
        """Blur the collected rows, and start with zeros again."""
        lattices = self._strips.lattices

        def blur(place: tuple[int, int]) -> None:
            i, vector = place
            size = lattices[i].size(LANES)
            part = slice(vector * size, (vector + 1) * size)
            mean_field_kernels.blur(lattices[i].neighbours, self.splatted[i][part], self.blurred[i][part])

        # The largest first, so that no thread is left with it at the end.
        workers(blur, [(i, v) for i in reversed(range(len(lattices))) for v in range(self._width // LANES)])
        for i, lattice in enumerate(lattices):
            if len(lattice.neighbours) % 2 == 0:
                self.splatted[i], self.blurred[i] = self.blurred[i], self.splatted[i]

    def gather(self, number: int, scales: Sequence[Floats]) -> Floats:
        """The rows of a strip's corners, times factors ``(W,)`` for each lattice."""
        rows = self._strips.strips[number].rows(self._width)
        for i, numbers, part in self._parts(number, rows):
            mean_field_kernels.gather(self.blurred[i], self._strips.lattices[i].size(LANES), numbers, scales[i], part)
        return rows

    def _parts(self, number: int, rows: Floats) -> Iterator[tuple[int, Ids, Floats]]:
        """For each lattice its index, the indices of its corners in a strip, and their part of the strip's rows."""
        begin = 0
        for i, lattice in enumerate(self._strips.lattices):
            end = begin + len(lattice.numbers[number]) * self._width
            yield i, lattice.numbers[number], rows[begin:end]
            begin = end


def aligned(size: int) -> Floats:
    """Uninitialised floats that begin at a cache line, as rows of them then do."""
    room = np.empty(size + LANES, np.float32)
    start = -room.ctypes.data % (4 * LANES) // 4
    return room[start : start + size]


def _runs(features: Tensor, first: int, last: int) -> Floats:
    """The features of some runs, ``(d, N)``, flat; the last point fills N up to a multiple of :data:`LANES`."""
    points = features[first * LANES : last * LANES].numpy().T
    more = (last - first) * LANES - points.shape[1]
    if more:
        points = np.pad(points, ((0, 0), (0, more)), mode="edge")
    return np.ascontiguousarray(points, np.float32).reshape(-1)
