"""A picture's lattices for the compiled mean field: built strip by strip, with the tables between two passes.

Each strip of pixels has its own numbers for the corners it needs, and its own rows in ``messages`` and ``splatted``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.lattice import directions, gain, key_strides, scale_factors
from atrous.crf.mean_field import Normalization, Pairwise
from atrous.crf.workers import Workers
from atrous.kernels import crf_lattice, crf_mean_field
from atrous.kernels.simd import LANES

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Keys = NDArray[np.int64]

_STRIP = 1 << 10
"""Runs of sixteen pixels in a strip, at least: the rows of its corners nearly go into a second-level cache."""
_STRIP_HEIGHT = 32
"""Rows of the picture in a strip, at least: thinner ones would share too many corners."""


@dataclass(frozen=True)
class Strip:
    """Some runs of pixels, and where the rows of their corners are in the tables; each lattice's are together."""

    first: int
    last: int
    row: int
    counts: tuple[int, ...]

    def part(self, table: Floats, width: int) -> Floats:
        """The strip's rows of a table with so many floats a row."""
        return table[self.row * width : (self.row + sum(self.counts)) * width]


class StripLattice:
    """One kernel's lattice over all strips.

    Attributes:
        neighbours: int32 ``(d+1, 2, M)``, as in :class:`atrous.crf.lattice.Lattice`.
        numbers: the corners of the strips, one strip after the other.
        starts: where each strip's begin.
        places: the rows in the strips' tables that they have.
        gain: what sliced values are multiplied with.
    """

    def __init__(self, strips: Sequence[Strip], index: int, keys: Keys, strides: list[int]) -> None:
        different, table, self.numbers = crf_lattice.number_corners(keys)
        self.neighbours = np.empty((len(strides) + 1, 2, len(different)), np.int32)
        for direction, step in zip(self.neighbours, directions(strides), strict=True):
            crf_lattice.find_neighbours(different, table, step, direction)
        self.starts = np.cumsum([0, *(strip.counts[index] for strip in strips)])
        begins = [strip.row + sum(strip.counts[:index]) for strip in strips]
        shifts = np.repeat(begins - self.starts[:-1], [strip.counts[index] for strip in strips])
        self.places = (np.arange(len(keys)) + shifts).astype(np.int32)
        self.gain = gain(len(strides))

    def table(self, width: int) -> Floats:
        """Room for ``(width / 16, M + 1, 16)`` values."""
        return aligned((self.neighbours.shape[2] + 1) * width)

    def blur(self, splatted: Floats, vector: int, table: Floats, spare: Floats) -> None:
        """Collect and blur one vector of the rows of the strips' tables into its part of ``table``."""
        size = (self.neighbours.shape[2] + 1) * LANES
        part = slice(vector * size, (vector + 1) * size)
        args = (self.places, self.numbers, vector, len(table) // size, self.neighbours, table[part], spare[part])
        crf_mean_field.blur(splatted, *args)

    def gather(self, number: int, table: Floats, scales: Floats, out: Floats) -> None:
        """Fetch what one strip needs of a blurred table."""
        numbers = self.numbers[self.starts[number] : self.starts[number + 1]]
        crf_mean_field.gather(table, (self.neighbours.shape[2] + 1) * LANES, numbers, scales, out)


class Strips:
    """A picture's pixels in strips, and the lattices of some kernels over them.

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
        pairwise: Sequence[Pairwise],
        size: Sequence[int],
        width: int,
        normalization: Normalization,
        workers: Workers,
    ) -> None:
        ends = [p.features.shape[1] + 1 for p in pairwise]
        self.rows = sum(ends)
        self._row_of = np.cumsum([0, *ends]).tolist()
        self.pixels = math.prod(size)
        self.runs = -(-self.pixels // LANES)
        self._length = max(_STRIP, _STRIP_HEIGHT * size[-1] // LANES)
        corners = self.runs * LANES * self.rows
        self.corners, self.slice_weights = np.empty(corners, np.int32), aligned(corners)
        strides = [key_strides(p.features) for p in pairwise]
        keys = self._find_corners([_padded(p.features) for p in pairwise], strides, workers)

        built: dict[int, StripLattice] = {}

        def number(i: int) -> None:
            built[i] = StripLattice(self.strips, i, np.concatenate([strip[i] for strip in keys]), strides[i])

        workers(number, sorted(range(len(pairwise)), key=lambda i: -ends[i]))
        self.lattices = [built[i] for i in range(len(pairwise))]
        self.splat_weights = self.slice_weights
        if normalization != "none":
            self._normalise(normalization, workers)
        self.corners *= width

    def _find_corners(self, features: list[Floats], strides: list[list[int]], workers: Workers) -> list[list[Keys]]:
        """Fill in corners and barycentric weights; find the strips, and the keys of their corners in each lattice."""
        firsts = range(0, self.runs, self._length)
        keys: list[list[Keys]] = [[] for _ in firsts]

        def find(number: int) -> None:
            for i, points in enumerate(features):
                axes = len(strides[i])
                found = crf_lattice.find_corners(
                    points,
                    axes,
                    firsts[number],
                    min(firsts[number] + self._length, self.runs),
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
        self.strips, row = [], 0
        for first, found in zip(firsts, keys, strict=True):
            self.strips.append(Strip(first, min(first + self._length, self.runs), row, tuple(map(len, found))))
            row += sum(self.strips[-1].counts)
        self.table_rows = row
        return keys

    def _normalise(self, normalization: Normalization, workers: Workers) -> None:
        """Give each weight its part in the power of K(1) that the normalisation asks for."""
        ones = aligned(self.table_rows * LANES)
        tables = [(lattice, lattice.table(LANES), lattice.table(LANES)) for lattice in self.lattices]
        weights = self.slice_weights if normalization == "symmetric" else self.slice_weights.copy()

        def splat(strip: Strip) -> None:
            points = (self.pixels, strip.first, strip.last, self.rows, self.corners, self.slice_weights)
            crf_mean_field.splat_ones(*points, strip.part(ones, LANES))

        def multiply(number: int) -> None:
            strip = self.strips[number]
            sums = strip.part(ones, LANES)
            self.gather(number, sums, [(table, np.ones(LANES, np.float32)) for _, table, _ in tables], LANES)
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

        workers(splat, self.strips)
        workers(lambda t: t[0].blur(ones, 0, t[1], t[2]), tables)
        workers(multiply, range(len(self.strips)))
        if normalization == "before":
            self.splat_weights = weights
        elif normalization == "after":
            self.slice_weights = weights

    def gather(self, number: int, out: Floats, blurred: list[tuple[Floats, Floats]], width: int) -> None:
        """Fetch a strip's rows of all lattices' blurred tables, times factors for the classes."""
        begin = 0
        for lattice, count, (table, scales) in zip(self.lattices, self.strips[number].counts, blurred, strict=True):
            lattice.gather(number, table, scales, out[begin * width : (begin + count) * width])
            begin += count


def aligned(size: int) -> Floats:
    """Room for some floats that begins where a cache line does, as rows then do."""
    room = np.empty(size + LANES, np.float32)
    start = -room.ctypes.data % (4 * LANES) // 4
    return room[start : start + size]


def _padded(features: Tensor) -> Floats:
    """Features ``(d, N)``, flat, with the last point again until N is a whole number of vectors."""
    points = features.numpy().T
    more = -points.shape[1] % LANES
    return np.ascontiguousarray(np.pad(points, ((0, 0), (0, more)), mode="edge"), np.float32).reshape(-1)
