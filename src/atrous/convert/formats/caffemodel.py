"""Reading Caffe's ``.caffemodel`` files without Caffe.

Such a file is one protobuf message, ``NetParameter`` of caffe.proto. Only names and arrays are read, in the form used
since 2014 (``layer``) and the one before (``layers``), with dimensions as a shape or as four numbers.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.convert.formats.protobuf import ProtobufError, check_dimensions, fields, part, varint
from atrous.convert.formats.signatures import SIGNATURE_BYTES, describe_signature, is_safetensors
from atrous.errors import InputError

Array = NDArray[Any]


class CaffeModelError(InputError):
    """A file that is not a ``.caffemodel``, or is damaged; the message says at which byte."""


class CaffeLayer(NamedTuple):
    """A layer with parameters: its name and its arrays (float32 or float64, read-only, memory-mapped)."""

    name: str
    blobs: tuple[Array, ...]


class _Form(NamedTuple):
    """Numbers of the needed fields of a layer message; ``older`` contains a layer in the previous form."""

    name: int
    blobs: int
    older: int | None


_FORMS = {100: _Form(name=1, blobs=7, older=None), 2: _Form(name=4, blobs=6, older=1)}
"""By field of NetParameter: LayerParameter, and V1LayerParameter, which may contain a V0LayerParameter."""
_SIDES = (1, 2, 3, 4)  # num, channels, height and width of a blob
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_PYTORCH = "use `atrous convert pytorch`"
_OTHERS = {
    b"PK": f"a zip file; if PyTorch wrote it, {_PYTORCH}",
    b"\x80\x02": f"a pickle; if PyTorch wrote it, {_PYTORCH}",
    b"\x89HDF": "an HDF5 file: load it with Caffe and save it as a binary .caffemodel",
    b"name:": "a text file, such as the .prototxt of a net: the parameters are in its .caffemodel",
    b"layer": "a text file, such as the .prototxt of a net: the parameters are in its .caffemodel",
}


def read_caffemodel(file: str | Path) -> list[CaffeLayer]:
    """The layers of a ``.caffemodel`` that have parameters, in order.

    Raises:
        CaffeModelError: the file is of another kind, truncated, damaged, or without parameters.
        OSError: the file can't be opened.
    """
    file = Path(file)
    with file.open("rb") as stream:
        if not stream.read(1):
            raise CaffeModelError(f"{file} is empty")
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    beginning = bytes(data[:SIGNATURE_BYTES])
    kind = f"a safetensors file: {_PYTORCH}" if is_safetensors(beginning) else describe_signature(beginning, _OTHERS)
    if kind:
        raise CaffeModelError(f"{file} is not a .caffemodel but {kind}")
    layers: list[CaffeLayer] = []
    try:
        for number, value in fields(data, slice(0, len(data))):
            if number in _FORMS and (layer := _layer(data, part(value), _FORMS[number])).blobs:
                layers.append(layer)
    except ProtobufError as error:
        last = f" after layer '{layers[-1].name}'" if layers else ""
        raise CaffeModelError(f"{file} is truncated or damaged{last}, or not a .caffemodel: {error}") from None
    if not layers:
        raise CaffeModelError(f"{file} has no layer with parameters: expected the .caffemodel of a trained net")
    return layers


def _layer(data: memoryview, place: slice, form: _Form) -> CaffeLayer:
    name, blobs = "", []
    for number, value in fields(data, place):
        if number == form.name:
            name = bytes(data[part(value)]).decode(errors="replace")
        elif number == form.blobs:
            blobs.append(_blob(data, part(value)))
        elif number == form.older:
            raise ProtobufError("its layers have the form of 2013; upgrade it by Caffe's upgrade_net_proto_binary")
    return CaffeLayer(name, tuple(blobs))


def _blob(data: memoryview, place: slice) -> Array:
    sides, chunks, dtype = dict.fromkeys(_SIDES, 1), [], "<f4"
    shape: list[int] | None = None
    for number, value in fields(data, place):
        if number in _SIDES and isinstance(value, int):
            sides[number] = value
        elif number == _SHAPE:
            shape = _dimensions(data, part(value))
        elif number in (_DATA, _DOUBLE_DATA):
            chunks.append(data[part(value)])
            dtype = "<f4" if number == _DATA else "<f8"
    content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    dimensions = list(sides.values()) if shape is None else shape
    check_dimensions(dimensions)
    if math.prod(dimensions) * np.dtype(dtype).itemsize != len(content):
        raise ProtobufError(f"byte {place.start}: an array of {dimensions} {dtype} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(dimensions)


def _dimensions(data: memoryview, place: slice) -> list[int]:
    dimensions = []
    for number, value in fields(data, place):
        if number == 1 and isinstance(value, int):
            dimensions.append(value)
        elif number == 1:
            packed = part(value)
            at = packed.start
            while at < packed.stop:
                size, at = varint(data, at, packed.stop)
                dimensions.append(size)
    return dimensions
