"""Checking the structure of a MATLAB file before scipy reads it: a damaged one ends the process inside scipy.

Matrices of any class but objects, functions and sparse ones are walked as scipy walks them (`MAT-File Format
<https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf>`_, version 5), and scipy receives only what was
checked: one variable, decompressed.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import Final, NamedTuple

from atrous.data.files.limits import DecodeLimitError, decode_limit
from atrous.errors import InputError

_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Size of a value by data type: int8, uint8, …, uint64."""
_CHARACTERS = (1, 2, 4, 16, 17, 18)
_CELL, _STRUCT, _CHAR, _NUMBERS = 1, 2, 4, range(6, 16)  # classes of matrices
_REFUSED = {3: "an object", 5: "a sparse matrix", 16: "a function", 17: "an opaque object"}
_COMPLEX = 0x800
_DEEPEST, _MOST_MATRICES, _MOST_FIELDS, _MOST_BLANKS = 20, 2**17, 4096, 2**16
"""Far beyond what annotations need: cells in cells, matrices in a variable, fields of a struct, characters of a string
that is stored as nothing.
"""
_LONGEST_START: Final = 4096
"""Bytes that certainly contain the class, the shape and the name of a variable."""
_PART = 2**17
_COPIES = 4
"""A variable in memory while it is read: decompressed, as a file, as scipy's arrays and as a mask."""


class MatlabStructureError(InputError):
    """A MATLAB file that is damaged or contains something that is not read; the message continues "(…)"."""


class Variable(NamedTuple):
    """A variable of a file: its name, its shape, and the bytes of its matrix, compressed or not according to kind."""

    name: str
    shape: tuple[int, ...]
    kind: int
    content: bytes


class _Element(NamedTuple):
    kind: int
    start: int
    size: int
    after: int


class _Start(NamedTuple):
    """What a matrix begins with, and where its content begins."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: bytes
    after: int


def is_version_5(data: bytes) -> bool:
    """Whether a file is of version 5 (MATLAB 5 to 7); those of version 4 begin with a small number.

    Raises:
        MatlabStructureError: neither, or version 7.3.
    """
    if len(data) >= 20 and 0 in data[:4]:
        return False
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data.startswith(b"MATLAB 7.3"):
        raise MatlabStructureError("version 7.3; save it in MATLAB with -v7")
    if len(data) < _HEADER or data[_HEADER - 2 : _HEADER] not in _ORDERS:
        raise MatlabStructureError("it does not begin like one")
    return True


def variables(data: bytes) -> Iterator[Variable]:
    """The variables of a file of version 5, in order.

    Raises:
        MatlabStructureError: the file is damaged.
    """
    order, at = _order(data), _HEADER
    while at < len(data):
        element = _element(data, at, order)
        after = element.start + element.size
        content = data[element.start if element.kind == _COMPRESSED else at : after]
        beginning = _decompressed(content, _LONGEST_START) if element.kind == _COMPRESSED else content
        matrix = _tag(beginning, 0, order)
        if matrix.kind != _MATRIX:
            raise MatlabStructureError(f"byte {at}: data of type {matrix.kind} instead of a matrix")
        start = _start(beginning, matrix.start, order)
        yield Variable(start.name.decode("latin1"), start.shape, element.kind, content)
        at = after


def checked_file(data: bytes, variable: Variable) -> io.BytesIO:
    """A file of version 5 with a single variable of another one, decompressed, that scipy can read safely.

    Raises:
        MatlabStructureError: the variable is damaged, or contains something that is not read.
        DecodeLimitError: it takes more memory than the limit.
    """
    order = _order(data)
    file = io.BytesIO()
    file.write(b"MATLAB 5.0 MAT-file".ljust(_HEADER - 12) + bytes(8) + data[_HEADER - 4 : _HEADER])
    for part in _inflated(variable.content) if variable.kind == _COMPRESSED else [variable.content]:
        file.write(part)
    file.write(bytes(-file.tell() % 8))
    with file.getbuffer() as content:
        matrix = _element(content, _HEADER, order)
        _Walk(content, order).check_content(matrix.start, 0)
    return file


class _Walk:
    """A walk through a variable's matrices."""

    def __init__(self, data: bytes | memoryview, order: str) -> None:
        self.data, self.order = data, order
        self.matrices = 0

    def check(self, at: int, depth: int) -> int:
        """Check an element that should be a matrix; returns the position after it."""
        element = _element(self.data, at, self.order)
        if element.kind != _MATRIX:
            raise MatlabStructureError(f"byte {at}: data of type {element.kind} instead of a matrix")
        if not element.size:  # an empty one
            return element.after
        after = self.check_content(element.start, depth)
        if abs(after - element.after) >= 8:
            raise MatlabStructureError(f"byte {at}: a matrix of {element.size} bytes, of which {after - at} are used")
        return after

    def check_content(self, at: int, depth: int) -> int:
        """Check a matrix; returns the position after it."""
        self.matrices += 1
        if depth > _DEEPEST or self.matrices > _MOST_MATRICES:
            raise MatlabStructureError(f"byte {at}: more than {_MOST_MATRICES} matrices, or {_DEEPEST} in each other")
        start = _start(self.data, at, self.order)
        count = prod(start.shape)
        if start.kind in _NUMBERS:
            return self._numbers(start, count)
        if start.kind == _CHAR:
            return self._characters(start, count)
        if start.kind == _CELL:
            return self._matrices(start.after, count, depth)
        if start.kind == _STRUCT:
            fields, after = self._fields(start.after)
            if count > _MOST_MATRICES:
                raise MatlabStructureError(f"byte {at}: {count} structs in {len(self.data)} bytes")
            return self._matrices(after, count * fields, depth)
        raise MatlabStructureError(f"byte {at}: {_REFUSED.get(start.kind, f'a matrix of class {start.kind}')}")

    def _numbers(self, start: _Start, count: int) -> int:
        if start.is_complex:
            raise MatlabStructureError(f"byte {start.after}: complex numbers")
        values = _element(self.data, start.after, self.order)
        if values.size != count * _VALUE_BYTES.get(values.kind, -1):
            shape = "×".join(map(str, start.shape))
            raise MatlabStructureError(
                f"byte {start.after}: {shape} values in {values.size} bytes of data type {values.kind}"
            )
        return values.after

    def _characters(self, start: _Start, count: int) -> int:
        text = _element(self.data, start.after, self.order)
        if text.kind not in _CHARACTERS or count > (text.size or _MOST_BLANKS):
            raise MatlabStructureError(
                f"byte {start.after}: {count} characters in {text.size} bytes of data type {text.kind}"
            )
        return text.after

    def _fields(self, at: int) -> tuple[int, int]:
        """The number of fields of a struct, and the position after their names."""
        length = _element(self.data, at, self.order)
        names = _element(self.data, length.after, self.order)
        (longest,) = struct.unpack_from(f"{self.order}i", self.data, length.start)
        is_form = (length.kind, length.size) == (_INT32, 4) and names.kind in (_INT8, _UTF8)
        if not is_form or longest < 1 or names.size % longest or names.size // longest > _MOST_FIELDS:
            raise MatlabStructureError(f"byte {at}: not the names of a struct's fields")
        return names.size // longest, names.after

    def _matrices(self, at: int, count: int, depth: int) -> int:
        if 8 * count > len(self.data) - at:
            raise MatlabStructureError(f"byte {at}: {count} matrices in {len(self.data) - at} bytes")
        for _ in range(count):
            at = self.check(at, depth + 1)
        return at


def _order(data: bytes) -> str:
    return _ORDERS[data[_HEADER - 2 : _HEADER]]


def _tag(data: bytes | memoryview, at: int, order: str) -> _Element:
    """The element at a position, which may end beyond the data."""
    if at + 8 > len(data):
        raise MatlabStructureError(f"it ends at byte {len(data)}, expected more at {at}")
    first, second = struct.unpack_from(f"{order}II", data, at)
    if small := first >> 16:  # a small element: type, size and up to four bytes of data
        if small > 4:
            raise MatlabStructureError(f"byte {at}: an element of {small} bytes where four fit")
        return _Element(first & 0xFFFF, at + 4, small, at + 8)
    padding = 0 if first in (_MATRIX, _COMPRESSED) else -second % 8
    return _Element(first, at + 8, second, at + 8 + second + padding)


def _element(data: bytes | memoryview, at: int, order: str) -> _Element:
    element = _tag(data, at, order)
    if element.start + element.size > len(data):
        raise MatlabStructureError(
            f"byte {at}: {element.size} bytes of data were expected, {len(data) - element.start} are left"
        )
    return element


def _start(data: bytes | memoryview, at: int, order: str) -> _Start:
    flags = _element(data, at, order)
    shape = _element(data, flags.after, order)
    name = _element(data, shape.after, order)
    is_form = (flags.kind, flags.size) == (_UINT32, 8) and shape.kind in (_INT32, _UINT32) and name.kind in (1, _UTF8)
    if not is_form or shape.size % 4 or not 8 <= shape.size <= 4 * 32:
        raise MatlabStructureError(f"byte {at}: not the beginning of a matrix")
    sides = struct.unpack_from(f"{order}{shape.size // 4}i", data, shape.start)
    if min(sides) < 0:
        raise MatlabStructureError(f"byte {at}: a matrix of {'×'.join(map(str, sides))}")
    (bits,) = struct.unpack_from(f"{order}I", data, flags.start)
    text = bytes(data[name.start : name.start + name.size])
    return _Start(bits & 0xFF, bool(bits & _COMPLEX), sides, text, name.after)


def _decompressed(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error as error:
        raise MatlabStructureError(str(error)) from error


def _inflated(data: bytes) -> Iterator[bytes]:
    """Decompressed data in parts: memory that is used again is much faster than new memory."""
    stream, left = zlib.decompressobj(), decode_limit() / _COPIES
    while not stream.eof:
        try:
            part = stream.decompress(data, _PART)
        except zlib.error as error:
            raise MatlabStructureError(str(error)) from error
        data, left = stream.unconsumed_tail, left - len(part)
        if left < 0:
            raise DecodeLimitError(f"a variable of more than {decode_limit() / _COPIES:,.0f} bytes")
        if not part and not stream.eof:
            raise MatlabStructureError("its compressed data end early")
        yield part
