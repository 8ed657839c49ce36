"""A writer of ``.caffemodel`` files, as small as the reader."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

Blobs = Mapping[str, Sequence[np.ndarray]]


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array: np.ndarray, form: str) -> bytes:
    if form == "old":
        sides = (1, 1, 1, 1, *array.shape)[-4:]
        head = b"".join(field(number, side) for number, side in enumerate(sides, 1))
    else:
        head = field(7, field(1, b"".join(map(varint, array.shape))))
    if array.dtype == np.float64:
        return head + field(8, array.astype("<f8").tobytes())
    if form == "unpacked":
        return head + b"".join(varint(5 << 3 | 5) + value.tobytes() for value in array.astype("<f4").flat)
    return field(5, array.astype("<f4").tobytes()) + head


@pytest.fixture
def write_caffemodel(tmp_path: Path) -> Callable[..., Path]:
    """Writes layers with their arrays, and one without: in the ``new`` form, ``old`` or with ``unpacked`` numbers."""

    def write(layers: Blobs, form: str = "new", name: str = "net.caffemodel") -> Path:
        number, called, holds = (2, 4, 6) if form == "old" else (100, 1, 7)
        file = tmp_path / name
        with file.open("wb") as out:
            out.write(field(1, b"a net") + field(5, 1))
            for layer, arrays in {"data": (), **layers}.items():
                parts = (
                    [field(called, layer.encode()), field(5, 4)] if form == "old" else [field(called, layer.encode())]
                )
                out.write(field(number, b"".join([*parts, *(field(holds, blob(array, form)) for array in arrays)])))
        return file

    return write
