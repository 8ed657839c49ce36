"""One limit on the memory that decoding a file may take, checked from headers before anything is allocated.

It holds for images, masks, annotations, matrices and arrays alike. The environment variable ``ATROUS_DECODE_LIMIT_GB``
sets another limit than 2 GB; worker processes inherit it.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Sequence
from math import ceil, prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from atrous.errors import InputError

VARIABLE = "ATROUS_DECODE_LIMIT_GB"
DEFAULT_GB = 2.0
GB = 10**9
BYTES_PER_PIXEL = 8
"""Of an 8-bit image while it is decoded: four in Pillow, three in the result, and one for the file. 250 megapixels
stay within the default limit.
"""
_LONGEST_HEADER = 10_000
"""Bytes of the header of an ``.npy`` file, as in NumPy."""


class DecodeLimitError(InputError):
    """A file whose content would take more memory than the limit."""


def decode_limit() -> float:
    """The limit in bytes.

    Raises:
        InputError: the environment variable is not a positive number.
    """
    given = os.environ.get(VARIABLE, "")
    try:
        limit = float(given or DEFAULT_GB)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise InputError(f"{VARIABLE} is {given!r}; expected a number of gigabytes above 0, for example {DEFAULT_GB:g}")
    return limit * GB


def check_pixels(height: int, width: int, bytes_per_pixel: int = BYTES_PER_PIXEL) -> None:
    """Refuse an image or a mask that is too large to decode.

    Raises:
        DecodeLimitError: it would take more than :func:`decode_limit`.
    """
    _check(f"{width}×{height} pixels", int(height) * int(width) * bytes_per_pixel, "cut it into smaller images")


def check_array(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuse an array that is too large to read.

    Raises:
        DecodeLimitError: it would take more than :func:`decode_limit`.
    """
    shown = "×".join(map(str, shape)) or "1"
    _check(f"an array of {shown} {dtype} values", prod(map(int, shape)) * dtype.itemsize, "store a smaller one")


def _check(what: str, size: int, remedy: str) -> None:
    limit = decode_limit()
    if size > limit:
        raise DecodeLimitError(
            f"{what}, which take {size / GB:.3g} GB to decode; expected at most {limit / GB:g} GB: {remedy}, or raise "
            f"the limit with {VARIABLE}={ceil(size / GB)}"
        )


def read_file(path: Path) -> bytes:
    """Read a regular file; a pipe or a device would be read for ever.

    Raises:
        OSError: missing, a folder, or not readable.
        InputError: not a regular file, or larger than the limit.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise InputError("a pipe or a device, expected a regular file; save its content to a file first")
    _check(f"{status.st_size:,} bytes", status.st_size, "cut it into smaller files")
    return path.read_bytes()


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an ``.npz`` file by their names, or the one of an ``.npy`` file under the name "".

    Raises:
        OSError: missing, or not readable.
        DecodeLimitError: arrays that together take more than the limit.
        InputError: damaged, or Python objects instead of numbers.
    """
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                shape, dtype = _npy_header(file)
            check_array(shape, dtype)
            return {"": np.load(path, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (InputError, OSError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside zip, zlib and NumPy
        reason = str(error) or type(error).__name__
        raise InputError(f"not readable arrays of NumPy ({reason}); write the file again") from error


def _check_members(archive: zipfile.ZipFile) -> None:
    size = 0
    for name in archive.namelist():
        with archive.open(name) as member:
            shape, dtype = _npy_header(member)
        check_array(shape, dtype)
        size += prod(shape) * dtype.itemsize
    _check(f"{len(archive.namelist())} arrays", size, "store fewer")


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype from the header of an ``.npy`` file.

    Raises:
        ValueError: not an ``.npy`` file, a damaged header, or one of unreasonable length.
    """
    start = io.BytesIO(file.read(_LONGEST_HEADER))  # a header may claim to be 4 GB long
    read = npy.read_array_header_1_0 if npy.read_magic(start) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(start)
    return shape, dtype
