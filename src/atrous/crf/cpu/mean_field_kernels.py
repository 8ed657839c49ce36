"""One mean-field iteration of a dense CRF in one pass over the pixels: slice, subtract the unary, softmax, splat.

The reference is :mod:`atrous.crf.mean_field`. Between two passes there are only tables of lattice corners, a row of
classes for each, and a strip of pixels needs few enough of them to stay in the cache; no distribution is written before
the last pass. Sixteen pixels go through each step together, so that their latencies overlap.

Arrays are flat. Rows of tables have W floats, the number of classes C rounded up to whole vectors. ``corners`` and
``weights`` are ``(N / 16, rows, 16)``: for each run of sixteen pixels and each of a pixel's corners (of all lattices,
one after the other), where the corner's row begins in the strip's table, and its weight.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.ops.simd import (
    LANES,
    add,
    address,
    exponential,
    larger,
    largest,
    load,
    load_id,
    load_index,
    load_number,
    multiply,
    multiply_add,
    reciprocal,
    spread,
    store,
    store_number,
    subtract,
    total,
    transpose,
)

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Places = NDArray[np.int64]

_OUT = np.float32(-1e30)
"""The negative energy of lanes beyond the last class."""
_FLOAT = 4
"""Bytes."""
NEGLIGIBLE = np.float32(1e-7)
"""Vectors of sixteen classes are skipped if all their probabilities in sixteen pixels are smaller."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def update_strip(
    unary: Floats,
    order: Places,
    first: int,
    last: int,
    rows: int,
    corners: Ids,
    slice_weights: Floats,
    table: Floats,
    splat_weights: Floats,
    out: Floats,
    active: Ids,
    everywhere: bool,
    q: Floats,
    labels: Any,
) -> Any:
    """Update the distribution of a strip of pixels.

    Args:
        unary: energies ``(C, N)``, finite.
        order: the classes, most frequent first, in which the tables have them.
        first: first run of the strip.
        last: run after the strip.
        rows: corners of a pixel.
        corners: of all pixels.
        slice_weights: of the corners.
        table: the strip's messages; empty in the first update.
        splat_weights: of the corners.
        out: the strip's table to which the distribution is splatted, overwriting it; empty to skip this.
        active: the number of vectors of classes of each run; all beyond are below :data:`NEGLIGIBLE`.
        everywhere: compute all classes, and update ``active``.
        q: ``(C, N)``, to which the distribution is written; empty to skip this.
        labels: integers ``(N,)``, to which the most likely classes are written; empty to skip this. If not
            ``everywhere``, only active classes are considered.

    Returns:
        The largest change of a value in ``q``.
    """
    classes, change = order.size, np.float32(0)
    whole, pixels = -(-classes // LANES) * LANES, unary.size // classes
    beyond, lanes = np.zeros(whole, np.float32), np.empty((2, whole), np.int64)
    beyond[classes:] = _OUT
    lanes[0] = order[classes - 1]
    lanes[0, :classes] = order
    lanes[1] = np.arange(whole)
    room, tile = np.empty(LANES * whole, np.float32), np.empty(LANES * whole, np.float32)
    out[:] = 0
    for run in range(first, last):
        # Taken in each iteration: an array may be freed after the last line that names it.
        energies = (address(unary), pixels, address(lanes), address(beyond), address(tile))
        start, place = run * LANES, run * rows * LANES * _FLOAT
        count, corner = min(LANES, pixels - start), address(corners) + place
        width = whole if everywhere else active[run] * LANES
        _read(energies, whole, start, address(room), width)
        if table.size > 0:
            _slice(address(table), corner, address(slice_weights) + place, rows, address(room), count, width)
        _softmax(address(room), count, width)
        if everywhere:
            active[run] = _active(address(room), count, whole)
        if out.size > 0:
            _splat(address(room), count, width, corner, address(splat_weights) + place, rows, address(out))
        if q.size > 0:
            change = max(change, _write(address(room), count, whole, address(tile), address(q), pixels, order, start))
        if labels.size > 0:
            for lane in range(count):
                labels[start + lane] = _likeliest(address(room) + lane * width * _FLOAT, order)
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _read(energies: tuple[int, int, int, int, int], whole: int, start: int, room: int, width: int) -> None:
    """Read the negative energies of a run of pixels, classes side by side; very negative beyond the last class."""
    unary, pixels, lanes, beyond, tile = energies
    source, step = unary + start * _FLOAT, pixels
    if start + LANES > pixels:  # sixteen floats would reach beyond the array
        for c in range(width):
            for lane in range(LANES):
                number = load_number(unary, load_index(lanes, c) * pixels + min(start + lane, pixels - 1))
                store_number(tile, c * LANES + lane, number)
        source, step, lanes = tile, LANES, lanes + 8 * whole
    for i in range(0, width, LANES):
        transpose(source, step, lanes + 8 * i, room + i * _FLOAT, width)
    for lane in range(LANES):
        for i in range(0, width, LANES):
            store(room, lane * width + i, subtract(load(beyond, i), load(room, lane * width + i)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _active(room: int, count: int, width: int) -> int:
    """The number of vectors of classes up to the last one that is not negligible in some of these pixels."""
    for i in range(width - LANES, 0, -LANES):
        most = load(room, i)
        for lane in range(1, count):
            most = larger(most, load(room, lane * width + i))
        if largest(most) >= NEGLIGIBLE:
            return i // LANES + 1
    return 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _slice(table: int, corners: int, weights: int, rows: int, room: int, count: int, width: int) -> None:
    """Add the messages to the negative energies of some pixels."""
    pairs = width - width % (2 * LANES)
    for lane in range(count):
        for i in range(0, pairs, 2 * LANES):
            left, right = load(room, lane * width + i), load(room, lane * width + i + LANES)
            for row in range(lane, rows * LANES + lane, LANES):
                weight, place = spread(load_number(weights, row)), load_id(corners, row) + i
                left = multiply_add(weight, load(table, place), left)
                right = multiply_add(weight, load(table, place + LANES), right)
            store(room, lane * width + i, left)
            store(room, lane * width + i + LANES, right)
        for i in range(pairs, width, LANES):
            left = load(room, lane * width + i)
            for row in range(lane, rows * LANES + lane, LANES):
                left = multiply_add(spread(load_number(weights, row)), load(table, load_id(corners, row) + i), left)
            store(room, lane * width + i, left)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _splat(room: int, count: int, width: int, corners: int, weights: int, rows: int, table: int) -> None:
    """Distribute the distributions of some pixels to their corners."""
    pairs = width - width % (2 * LANES)
    for lane in range(count):
        for i in range(0, pairs, 2 * LANES):
            left, right = load(room, lane * width + i), load(room, lane * width + i + LANES)
            for row in range(lane, rows * LANES + lane, LANES):
                weight, place = spread(load_number(weights, row)), load_id(corners, row) + i
                store(table, place, multiply_add(weight, left, load(table, place)))
                store(table, place + LANES, multiply_add(weight, right, load(table, place + LANES)))
        for i in range(pairs, width, LANES):
            left = load(room, lane * width + i)
            for row in range(lane, rows * LANES + lane, LANES):
                weight, place = spread(load_number(weights, row)), load_id(corners, row) + i
                store(table, place, multiply_add(weight, left, load(table, place)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _softmax(room: int, count: int, width: int) -> None:
    """Turn the negative energies of some pixels into distributions."""
    for begin in range(0, count * width, width):
        top = load(room, begin)
        for i in range(begin + LANES, begin + width, LANES):
            top = larger(top, load(room, i))
        highest, sums = spread(largest(top)), spread(np.float32(0))
        for i in range(begin, begin + width, LANES):
            value = exponential(subtract(load(room, i), highest))
            sums = add(sums, value)
            store(room, i, value)
        share = spread(reciprocal(total(sums)))
        for i in range(begin, begin + width, LANES):
            store(room, i, multiply(load(room, i), share))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _write(room: int, count: int, width: int, tile: int, q: int, pixels: int, order: Places, start: int) -> np.float32:
    """Write the distributions of some pixels; returns the largest change."""
    change, lanes = np.float32(0), np.arange(LANES)
    for i in range(0, width, LANES):
        transpose(room + i * _FLOAT, width, address(lanes), tile + i * LANES * _FLOAT, LANES)
    for c in range(order.size):
        begin = order[c] * pixels + start
        if count == LANES:
            value = load(tile, c * LANES)
            off = subtract(value, load(q, begin))
            change = max(change, largest(larger(off, subtract(spread(np.float32(0)), off))))
            store(q, begin, value)
        else:
            for lane in range(count):
                number = load_number(tile, c * LANES + lane)
                change = max(change, abs(number - load_number(q, begin + lane)))
                store_number(q, begin + lane, number)
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _likeliest(distribution: int, order: Places) -> Any:
    """The class with the highest probability in a distribution, the lowest among equals."""
    most, label = load_number(distribution, 0), order[0]
    for c in range(1, order.size):
        value = load_number(distribution, c)
        if value > most or (value == most and order[c] < label):
            most, label = value, order[c]
    return label


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def splat_ones(pixels: int, first: int, last: int, rows: int, corners: Ids, weights: Floats, table: Floats) -> None:
    """Splat a constant 1 from a strip's pixels.

    Args:
        pixels: N.
        first: first run of the strip.
        last: run after the strip.
        rows: corners of a pixel.
        corners: indices of corners in the strip, not yet starts of rows.
        weights: barycentric weights.
        table: rows of one vector, of which only the first float is used; overwritten.
    """
    table[:] = 0
    for run in range(first, last):
        for i in range(run * rows * LANES, (run + 1) * rows * LANES, LANES):
            for lane in range(min(LANES, pixels - run * LANES)):
                table[corners[i + lane] * LANES] += weights[i + lane]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def normalise(
    first: int,
    last: int,
    rows: int,
    row: int,
    row_end: int,
    corners: Ids,
    table: Floats,
    gain: float,
    symmetric: bool,
    weights: Floats,
) -> None:
    """Multiply a lattice's weights with a power of the kernel's sums, which are sliced from a table.

    Args:
        first: first run of the strip.
        last: run after the strip.
        rows: corners of a pixel.
        row: first row of this lattice.
        row_end: the row after its last.
        corners: indices of corners, as in :func:`splat_ones`.
        table: the strip's sums before slicing, as in :func:`splat_ones`.
        gain: the factor of sliced values.
        symmetric: whether the power is -½ instead of -1.
        weights: barycentric weights on entry.
    """
    sums = np.empty(LANES, np.float32)
    for run in range(first, last):
        sums[:] = 1e-20
        for i in range((run * rows + row) * LANES, (run * rows + row_end) * LANES, LANES):
            for lane in range(LANES):
                sums[lane] += gain * weights[i + lane] * table[corners[i + lane] * LANES]
        for lane in range(LANES):
            sums[lane] = 1 / (math.sqrt(sums[lane]) if symmetric else sums[lane])
        for i in range((run * rows + row) * LANES, (run * rows + row_end) * LANES, LANES):
            for lane in range(LANES):
                weights[i + lane] *= sums[lane]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def collect(rows: Floats, numbers: Ids, width: int, tables: Floats, size: int) -> None:
    """Add the rows of some corners to a lattice's tables.

    Args:
        rows: ``(corners, W)``.
        numbers: indices of the corners.
        width: W.
        tables: ``(W / 16, M + 1, 16)``.
        size: number of floats of one table, 16 (M + 1).
    """
    for i in range(numbers.size):
        for vector in range(0, width, LANES):
            place = vector // LANES * size + np.int64(numbers[i]) * LANES
            value = add(load(address(tables), place), load(address(rows), i * width + vector))
            store(address(tables), place, value)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def blur(neighbours: Ids, table: Floats, spare: Floats) -> None:
    """Blur one vector of a lattice's rows along each direction in turn, from one table to the other and back.

    Args:
        neighbours: ``(d + 1, 2, M)``; M for none.
        table: ``(M + 1, 16)``, zero in the last row. Afterwards it holds the result if d + 1 is even, else zeros.
        spare: likewise; afterwards it holds zeros if d + 1 is even, else the result.
    """
    directions, _, size = neighbours.shape
    into, other = address(table), address(spare)
    spare[size * LANES :] = 0
    half = spread(np.float32(0.5))
    for direction in range(directions):
        beside = address(neighbours) + direction * 2 * size * _FLOAT
        for i in range(size):
            before = load(into, load_id(beside, i) * LANES)
            sides = add(before, load(into, load_id(beside, size + i) * LANES))
            store(other, i * LANES, multiply_add(half, sides, load(into, i * LANES)))
        into, other = other, into
    if directions % 2 == 0:
        spare[:] = 0
    else:
        table[:] = 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def gather(tables: Floats, size: int, numbers: Ids, scales: Floats, out: Floats) -> None:
    """Fetch the rows of some corners from a lattice's blurred tables.

    Args:
        tables: ``(W / 16, M + 1, 16)``.
        size: number of floats of one table, 16 (M + 1).
        numbers: indices of the corners.
        scales: ``(W,)``, a factor for each class.
        out: ``(corners, W)``.
    """
    width = scales.size
    for i in range(numbers.size):
        for vector in range(0, width, LANES):
            value = load(address(tables), vector // LANES * size + np.int64(numbers[i]) * LANES)
            store(address(out), i * width + vector, multiply(value, load(address(scales), vector)))
