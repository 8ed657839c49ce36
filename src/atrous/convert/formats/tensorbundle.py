"""Reading TensorFlow's checkpoints (V2, since 2016) without TensorFlow.

``PREFIX.index`` is a sorted table in LevelDB's format. Its protobuf messages specify where the bytes of each variable
are in ``PREFIX.data-00000-of-00001`` (or several such files).
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.convert.formats.protobuf import ProtobufError, check_dimensions, fields, number, part, varint
from atrous.convert.formats.signatures import SIGNATURE_BYTES, describe_signature
from atrous.convert.tensors import MissingPartError, listed
from atrous.errors import InputError

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5  # bytes after a table, and after each of its blocks: compression and checksum
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
_END = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


class CheckpointFileError(InputError):
    """Files that are not a TensorFlow checkpoint, or are damaged."""


def read_tensor_bundle(prefix: str | Path) -> dict[str, NDArray[Any]]:
    """The variables of a checkpoint by name, read-only and memory-mapped; strings are left out.

    Args:
        prefix: the checkpoint's name in TensorFlow, such as ``model.ckpt-30000``; or one of its files.

    Raises:
        CheckpointFileError: the files can't be read.
        MissingPartError: a file is missing.
    """
    prefix = Path(prefix)
    if prefix.is_dir() and not Path(f"{prefix}.index").is_file():
        there = [str(index.with_suffix("")) for place in ("", "variables/") for index in prefix.glob(f"{place}*.index")]
        hint = f"; name a checkpoint in it: {listed(sorted(there))}" if there else " without the .index of a checkpoint"
        raise CheckpointFileError(f"{prefix} is a folder{hint}")
    prefix = prefix.with_name(_END.sub("", prefix.name))
    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        raise MissingPartError(
            f"{index} is missing: a checkpoint is {prefix.name}.index and {prefix.name}.data-..., which belong "
            f"together; {_beside(prefix)}"
        )
    table = memoryview(index.read_bytes())
    if kind := describe_signature(bytes(table[:SIGNATURE_BYTES]), {}):
        raise CheckpointFileError(f"{index} is not a TensorFlow checkpoint but {kind}")
    shards: dict[str, memoryview] = {}
    variables: dict[str, NDArray[Any]] = {}
    count = 1
    try:
        for name, place in _table(table):
            if not name:
                count = dict(_numbers(table, place)).get(1, 1)
            elif (entry := _Entry(table, place)).dtype in _DTYPES:
                shard = f"{prefix.name}.data-{entry.shard:05}-of-{count:05}"
                if shard not in shards:
                    shards[shard] = _mapped(prefix, shard)
                variables[name] = entry.read(shards[shard], name)
    except ProtobufError as error:
        raise CheckpointFileError(f"{index} is damaged, or not a TensorFlow checkpoint: {error}") from None
    return variables


class _Entry:
    """The entry of a variable in the table (BundleEntryProto)."""

    def __init__(self, table: memoryview, place: slice) -> None:
        self.dtype = self.shard = self.offset = self.size = 0
        self.shape: list[int] = []
        for key, value in fields(table, place):
            if key == 2:
                self.shape = [dict(_numbers(table, part(dim))).get(1, 0) for _, dim in fields(table, part(value))]
            elif key == 7:
                raise ProtobufError(f"byte {part(value).start}: a variable in slices, which are not supported")
            elif key in (1, 3, 4, 5):
                setattr(self, {1: "dtype", 3: "shard", 4: "offset", 5: "size"}[key], number(value))

    def read(self, data: memoryview, name: str) -> NDArray[Any]:
        dtype = np.dtype(_DTYPES[self.dtype])
        check_dimensions(self.shape)
        if math.prod(self.shape) * dtype.itemsize != self.size or self.offset + self.size > len(data):
            raise ProtobufError(f"{name} {self.shape} {dtype} should be {self.size} bytes from {self.offset} on")
        return np.frombuffer(data[self.offset : self.offset + self.size], dtype).reshape(self.shape)


def _numbers(data: memoryview, place: slice) -> Iterator[tuple[int, int]]:
    return ((key, value) for key, value in fields(data, place) if isinstance(value, int))


def _mapped(prefix: Path, shard: str) -> memoryview:
    file = prefix.with_name(shard)
    if not file.is_file():
        raise MissingPartError(
            f"{file} is missing: it contains the variables that {prefix.name}.index lists, and belongs in its folder; "
            + _beside(prefix)
        )
    with file.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) if stream.read(1) else memoryview(b"")


def _beside(prefix: Path) -> str:
    """The files of a checkpoint that exist, for error messages."""
    there = sorted(p.name for p in prefix.parent.glob(f"{escape(prefix.name)}*") if p.is_file())
    alone = " (graphs and single-file checkpoints are not supported)" if prefix.name in there else ""
    return f"found {listed(there) or 'no file of that name'}{alone}"


def _table(data: memoryview) -> Iterator[tuple[str, slice]]:
    """The keys of a table, and the places of their values."""
    footer = len(data) - _FOOTER
    if footer < 0 or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise ProtobufError("it does not end like a table")
    at = footer
    for _ in range(2):  # start and length of another index: not needed
        _, at = varint(data, at, len(data))
    for _, handle in _block(data, *_handle(data, at, len(data))):
        for key, place in _block(data, *_handle(data, handle.start, handle.stop)):
            yield key.decode(errors="replace"), place


def _handle(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """The start and the length of a block."""
    begin, at = varint(data, at, stop)
    return begin, varint(data, at, stop)[0]


def _block(data: memoryview, begin: int, size: int) -> Iterator[tuple[bytes, slice]]:
    """The keys of a block, each of which shares a prefix with the previous one, and the places of their values."""
    end = begin + size
    if size < 4 or end + _TRAILER > len(data):
        raise ProtobufError(f"byte {begin}: a block of {size} bytes does not fit")
    if data[end]:
        raise ProtobufError(f"byte {begin}: a compressed block; TensorFlow writes uncompressed ones")
    stop = end - 4 * (1 + int.from_bytes(data[end - 4 : end], "little"))
    key, at = b"", begin
    while at < stop:
        shared, at = varint(data, at, stop)
        fresh, at = varint(data, at, stop)
        length, at = varint(data, at, stop)
        key = key[:shared] + bytes(data[at : at + fresh])
        at += fresh + length
        if at > stop:
            raise ProtobufError(f"byte {at - length}: a value of {length} bytes does not fit into its block")
        yield key, slice(at - length, at)
