"""Building permutohedral lattices over images: :mod:`atrous.crf.lattice`, compiled and strip by strip.

Only about one pixel in four lies in a simplex of its own within a strip, so pixels are looked up by their simplex
first, and corners only for new simplices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.ops.simd import (
    LANES,
    add,
    address,
    if_equal,
    if_less,
    load,
    multiply,
    nearest_integer,
    spread,
    store,
    subtract,
)

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Keys = NDArray[np.int64]

MOST_AXES = 15
"""Most features of a compiled lattice: sixteen ranks of four bits fit one key."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def find_corners(
    features: Floats,
    axes: int,
    first: int,
    last: int,
    factors: Floats,
    strides: Keys,
    row: int,
    rows: int,
    base: int,
    weights: Floats,
    vertices: Ids,
) -> Keys:
    """Find the corners of each pixel's simplex in one strip.

    Args:
        features: ``(axes, N)``, flat, of the strip's N pixels, a multiple of :data:`LANES`.
        axes: d, up to :data:`MOST_AXES`.
        first: first run of the strip.
        last: run after the strip.
        factors: ``(d,)``, the factor of each axis.
        strides: ``(d,)``; a corner's key is the scalar product of its coordinates with them.
        row: first of this lattice's d + 1 rows in ``weights`` and ``vertices``.
        rows: number of rows of all lattices.
        base: index of this lattice's first corner in the strip.
        weights: ``(runs, rows, LANES)``, flat; barycentric weights are written to it.
        vertices: likewise; indices of corners are written to it.

    Returns:
        The keys of the strip's corners, by index.
    """
    room, corners, strip = features.size // axes, axes + 1, (last - first) * LANES
    scratch = np.empty(4 * corners * LANES, np.float32)
    simplex, code = np.empty(LANES, np.int64), np.empty(LANES, np.int64)

    seen = np.full(_capacity(strip), -1, np.int32)
    seen_simplex, seen_code = np.empty(strip, np.int64), np.empty(strip, np.int64)
    seen_corners = np.empty((strip, corners), np.int32)
    simplices = 0

    table = np.full(_capacity(strip), -1, np.int32)
    keys = np.empty(corners * strip, np.int64)
    count = 0
    steps, axis_at = np.empty(corners, np.int64), np.empty(16, np.int64)
    steps[:] = strides.sum()
    steps[:axes] -= corners * strides

    for run in range(first, last):
        _embed(address(features) + 4 * (run - first) * LANES, axes, room, factors, address(scratch))
        _simplex_keys(scratch, axes, strides, simplex, code)
        block = (run * rows + row) * LANES
        for i in range(0, corners * LANES, LANES):
            store(address(weights), block + i, load(address(scratch), i))
        for lane in range(LANES):
            place = _mix(simplex[lane] + 31 * code[lane]) & (seen.size - 1)
            known = seen[place]
            while known >= 0 and (seen_simplex[known] != simplex[lane] or seen_code[known] != code[lane]):
                place = (place + 1) & (seen.size - 1)
                known = seen[place]
            if known < 0:
                known = simplices
                seen[place] = known
                seen_simplex[known], seen_code[known] = simplex[lane], code[lane]
                simplices += 1
                while 2 * (count + corners) > table.size:
                    table = _grown(table, keys[:count])
                for axis in range(corners):
                    axis_at[(code[lane] >> 4 * axis) & 15] = axis
                key = simplex[lane]
                for corner in range(corners):
                    slot = find(table, keys, key)
                    if table[slot] < 0:
                        table[slot] = count
                        keys[count] = key
                        count += 1
                    seen_corners[known, corner] = base + table[slot]
                    key += steps[axis_at[axes - corner]]  # on to the next corner, in the order of the ranks
            for corner in range(corners):
                vertices[block + corner * LANES + lane] = seen_corners[known, corner]
    return keys[:count].copy()


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _embed(features: int, axes: int, room: int, factors: Floats, scratch: int) -> None:
    """Compute barycentric weights, ranks and nearest points of sixteen pixels, a vector for each of d + 1 coordinates.

    The operations and their order are those of :func:`atrous.crf.lattice.embed`.
    """
    span = (axes + 1) * LANES
    ranks, nearest, elevated = span, 2 * span, 3 * span
    up, down = spread(np.float32(axes + 1)), spread(np.float32(1 / (axes + 1)))
    zero, one = spread(np.float32(0)), spread(np.float32(1))

    height = zero
    for axis in range(axes, 0, -1):
        scaled = multiply(load(features, (axis - 1) * room), spread(factors[axis - 1]))
        store(scratch, elevated + axis * LANES, subtract(height, multiply(spread(np.float32(axis)), scaled)))
        height = add(height, scaled)
    store(scratch, elevated, height)

    off = zero
    for i in range(0, span, LANES):
        rounded = nearest_integer(multiply(load(scratch, elevated + i), down))
        off = add(off, rounded)
        store(scratch, nearest + i, multiply(rounded, up))
        store(scratch, i, subtract(load(scratch, elevated + i), load(scratch, nearest + i)))
        store(scratch, ranks + i, zero)
    for i in range(0, span, LANES):
        rank, residual = load(scratch, ranks + i), load(scratch, i)
        for j in range(i + LANES, span, LANES):
            lower = if_less(residual, load(scratch, j), one)
            rank = add(rank, lower)
            store(scratch, ranks + j, add(load(scratch, ranks + j), subtract(one, lower)))
        store(scratch, ranks + i, rank)
    for i in range(0, span, LANES):
        rank = add(load(scratch, ranks + i), off)
        wrap = subtract(if_less(rank, zero, up), if_less(spread(np.float32(axes)), rank, up))
        store(scratch, ranks + i, add(rank, wrap))
        point = add(load(scratch, nearest + i), wrap)
        store(scratch, nearest + i, point)
        store(scratch, elevated + i, multiply(subtract(load(scratch, elevated + i), point), down))

    above = _ranked(scratch, axes, np.float32(0))
    first = subtract(one, above)
    for rank_number in range(1, axes + 1):
        value = _ranked(scratch, axes, np.float32(rank_number))
        store(scratch, (axes + 1 - rank_number) * LANES, subtract(above, value))
        above = value
    store(scratch, 0, add(above, first))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _ranked(scratch: int, axes: int, rank: np.float32) -> Any:
    """The residual of the coordinate with a rank, for sixteen pixels."""
    span = (axes + 1) * LANES
    value = spread(np.float32(0))
    for i in range(0, span, LANES):
        value = add(value, if_equal(load(scratch, span + i), spread(rank), load(scratch, 3 * span + i)))
    return value


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _simplex_keys(scratch: Floats, axes: int, strides: Keys, simplex: Keys, code: Keys) -> None:
    """Identify the simplices of sixteen pixels: the key of their first corner and the ranks of their coordinates."""
    span = (axes + 1) * LANES
    for lane in range(LANES):
        simplex[lane] = 0
        code[lane] = np.int64(scratch[span + axes * LANES + lane]) << 4 * axes
    for axis in range(axes):
        for lane in range(LANES):
            simplex[lane] += np.int64(scratch[2 * span + axis * LANES + lane]) * strides[axis]
            code[lane] |= np.int64(scratch[span + axis * LANES + lane]) << 4 * axis


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def number_corners(keys: Keys) -> tuple[Keys, Ids, Ids]:
    """Number distinct keys in the order of their first occurrence.

    Returns:
        The distinct keys, a hash table of them, and the index of each of ``keys``.
    """
    different, count = np.empty(keys.size, np.int64), 0
    table, numbers = np.full(_capacity(keys.size), -1, np.int32), np.empty(keys.size, np.int32)
    for i in range(keys.size):
        slot = find(table, different, keys[i])
        if table[slot] < 0:
            table[slot] = count
            different[count] = keys[i]
            count += 1
        numbers[i] = table[slot]
    return different[:count].copy(), table, numbers


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def find_neighbours(keys: Keys, table: Ids, step: int, neighbours: Ids) -> None:
    """Find the corners one step before and after each corner, ``(2, M)``; M for none."""
    neighbours[:] = keys.size
    for i in range(keys.size):
        beside = table[find(table, keys, keys[i] + step)]
        if beside >= 0:
            neighbours[1, i] = beside
            neighbours[0, beside] = i


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def find(table: Ids, keys: Keys, key: int) -> Any:
    """The slot of a hash table that holds the index of a key, or the empty slot where it belongs."""
    slot = _mix(key) & (table.size - 1)
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & (table.size - 1)
    return slot


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mix(key: int) -> Any:
    """A nonnegative hash of a key."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(32))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _capacity(count: int) -> int:
    """The size of a hash table that is at most half full, a power of two."""
    slots = 64
    while slots < 2 * count:
        slots *= 2
    return slots


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grown(table: Ids, keys: Keys) -> Ids:
    """The table with twice the slots."""
    larger = np.full(2 * table.size, -1, np.int32)
    for i in range(keys.size):
        larger[find(larger, keys, keys[i])] = i
    return larger
