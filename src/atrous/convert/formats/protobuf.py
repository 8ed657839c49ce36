"""Reading protocol buffers, as far as files of weights use them: the fields of a message, without its schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atrous.errors import InputError

_VARINT, _BYTES, _FIXED = 0, 2, {1: 8, 5: 4}  # wire types; the fixed ones with their sizes


class ProtobufError(InputError):
    """Bytes that are not a message; the error says at which byte."""


_LARGEST, _MOST = 2**31, 32
"""No array has a larger dimension, or more of them; NumPy can't make one."""


def check_dimensions(dimensions: Sequence[int]) -> None:
    """Check the dimensions of an array.

    Raises:
        ProtobufError: one is negative or too large, or there are too many.
    """
    if len(dimensions) > _MOST or not all(0 <= side < _LARGEST for side in dimensions):
        raise ProtobufError(f"an array of {len(dimensions)} dimensions, {list(dimensions[:4])}: none is so large")


def fields(data: memoryview, place: slice) -> Iterator[tuple[int, int | slice]]:
    """The fields of a message: their numbers, and the value of an integer or the place of anything else.

    Raises:
        ProtobufError: a field is malformed, or ends beyond the message.
    """
    at: int = place.start
    while at < place.stop:
        begin = at
        tag, at = varint(data, at, place.stop)
        number, wire = tag >> 3, tag & 7
        if not number or wire not in (_VARINT, _BYTES, *_FIXED):
            raise ProtobufError(f"byte {begin}: not the beginning of a protobuf field")
        if wire == _VARINT:
            value, at = varint(data, at, place.stop)
            yield number, value
            continue
        size, at = varint(data, at, place.stop) if wire == _BYTES else (_FIXED[wire], at)
        if at + size > place.stop:
            raise ProtobufError(
                f"byte {begin}: field {number} should have {size} bytes, but {place.stop - at} are left"
            )
        yield number, slice(at, at + size)
        at += size


def varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """An integer, and the position after it.

    Raises:
        ProtobufError: the integer does not end.
    """
    value = 0
    for count, byte in enumerate(data[at : min(stop, at + 10)]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, at + count + 1
    raise ProtobufError(f"byte {at}: an integer does not end")


def part(value: int | slice) -> slice:
    """The place of a field that is not an integer.

    Raises:
        ProtobufError: it is an integer.
    """
    if isinstance(value, int):
        raise ProtobufError(f"found the number {value} instead of a message or string")
    return value


def number(value: int | slice) -> int:
    """The value of a field that is an integer.

    Raises:
        ProtobufError: it is not an integer.
    """
    if isinstance(value, slice):
        raise ProtobufError(f"byte {value.start}: found a message or string instead of a number")
    return value
