"""Run lengths, as tools store masks: COCO's, also compressed; rows in a box (CVAT, Hasty); Label Studio's brush."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.limits import check_array
from atrous.errors import InputError

Inside = NDArray[np.bool_]


def unpack_runs(packed: str) -> list[int]:
    """Decode runs from COCO's compressed strings: five bits per character, 32 for more to come, 16 in the last for a
    negative number; from the fourth on, each run is stored as the difference to the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for code in packed.encode():
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def pack_runs(runs: Sequence[int]) -> str:
    """Encode runs as COCO's compressed string; the inverse of :func:`unpack_runs`."""
    packed = bytearray()
    for place, run in enumerate(runs):
        value, more = int(run) - (int(runs[place - 2]) if place > 2 else 0), True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            packed.append((bits | 32 if more else bits) + 48)
    return packed.decode()


def inside_runs(runs: Sequence[int] | NDArray[np.int32], height: int, width: int) -> Inside:
    """The pixels ``(H, W)`` inside an object, given its runs down the columns: outside, inside, outside, …"""
    return _alternating(runs).reshape(width, height).T


def runs_of(inside: Inside) -> list[int]:
    """The runs down the columns of an object ``(H, W)``; the inverse of :func:`inside_runs`."""
    return _lengths(inside.T.ravel())


def inside_rows(runs: Sequence[int], height: int, width: int) -> Inside:
    """The pixels ``(h, w)`` of a box inside an object, given its runs along the rows: outside, inside, outside, …

    Raises:
        InputError: the runs do not fill the box.
    """
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise InputError(f"runs of {sum(runs)} pixels, expected {width}×{height} = {height * width}")
    return _alternating(runs).reshape(height, width)


def rows_of(inside: Inside) -> list[int]:
    """The runs along the rows of an object ``(H, W)``; the inverse of :func:`inside_rows`."""
    return _lengths(inside.ravel())


def _alternating(runs: Sequence[int] | NDArray[np.int32]) -> Inside:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def _lengths(flat: Inside) -> list[int]:
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


_SIZES = (3, 4, 8, 16)
"""Bits of the four sizes of lengths in Label Studio's runs."""


def inside_brush(packed: Sequence[int], height: int, width: int) -> Inside:
    """The pixels ``(H, W)`` that Label Studio's brush painted, from its ``rle``: those at least half opaque.

    The numbers are bytes of a stream of bits: the count of values (32 bits), bits of a value - 1 (5), bits of the four
    sizes of lengths - 1 (4 × 4); then blocks of a flag, the number of a size (2), a length - 1, and one value if the
    flag is set, else ``length`` values. The values are red, green, blue and alpha of each pixel, along the rows.

    Raises:
        InputError: the stream ends early, or is of another image size.
    """
    bits = _Bits(bytes(packed))
    count, word, sizes = bits.read(32), bits.read(5) + 1, [bits.read(4) + 1 for _ in range(4)]
    if count != height * width * 4:
        raise InputError(f"a brush of {count} values, expected 4 for each of {width}×{height} pixels")
    check_array((count,), np.dtype(np.uint8))
    values, at = np.empty(count, np.uint8), 0
    while at < count:
        same = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if same:
            values[at:end] = bits.read(word)
        else:
            values[at:end] = [bits.read(word) for _ in range(min(end, count) - at)]
        at = end
    return values.reshape(height, width, 4)[..., 3] >= 128


class _Bits:
    """Reads a stream of bits from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, count: int) -> int:
        first, last = self.at // 8, (self.at + count + 7) // 8
        if last > len(self.data):
            raise InputError("a brush whose run lengths end early")
        self.at += count
        window = int.from_bytes(self.data[first:last], "big")
        return window >> (last * 8 - self.at) & ((1 << count) - 1)


def brush_of(inside: Inside) -> list[int]:
    """Label Studio's ``rle`` of an object ``(H, W)``; the inverse of :func:`inside_brush`."""
    bits = [f"{inside.size * 4:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for value, length in _blocks(inside):
        place = next(place for place, size in enumerate(_SIZES) if length <= 1 << size)
        bits.append(f"1{place:02b}{length - 1:0{_SIZES[place]}b}{value:08b}")
    stream = "".join(bits)
    padded = stream + "0" * (-len(stream) % 8)
    return list(int(padded, 2).to_bytes(len(padded) // 8, "big"))


def _blocks(inside: Inside) -> Iterator[tuple[int, int]]:
    longest = 1 << _SIZES[-1]
    for place, run in enumerate(rows_of(inside)):
        left = 4 * run
        while left:
            yield 255 * (place % 2), min(left, longest)
            left -= min(left, longest)
