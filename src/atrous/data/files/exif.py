"""The orientation that EXIF gives to an image, and turning pixels by it."""

from __future__ import annotations

import contextlib
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Pixels = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow's names of the formats that contain JPEG pixels."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns the stored pixels of an orientation upright."""


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 if it has none, or none that is readable."""
    if image.format in JPEG_FORMATS:  # getexif would take it from XMP too, which OpenCV does not read
        return jpeg_orientation(image.info.get("exif", b""))
    with contextlib.suppress(Exception):  # broken EXIF is common, and not a reason to refuse the image
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        return orientation if orientation in TURNS else 1
    return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """The upright height and width of an opened image that is not loaded yet."""
    width, height = image.size
    turned = orientation_of(image) >= 5 and image.format != "TIFF"  # whose size is upright from the start
    return (width, height) if turned else (height, width)


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation in the bytes of a JPEG; Pillow would print a warning if EXIF is broken."""
    start = data.find(b"Exif\0\0") + 6
    if start < 6:
        return 1
    order: Literal["little", "big"] = "little" if data[start : start + 2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[start + at : start + at + size], order)

    table = number(4, 4)
    for entry in range(table + 2, table + 2 + 12 * number(table, 2), 12):
        if number(entry, 2) == ExifTags.Base.Orientation:
            return found if (found := number(entry + 8, 2)) in TURNS else 1
    return 1


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels ``(H, W)`` or ``(H, W, 3)`` upright, by the EXIF ``orientation`` (1 to 8)."""
    if orientation == 1:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(TURNS[orientation]))


def turn_array(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored values ``(..., H, W)`` of any dtype upright, by the EXIF ``orientation`` (1 to 8)."""
    if orientation >= 5:
        values = values.swapaxes(-1, -2)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(values[..., :: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def as_stored(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """View upright pixels ``(H, W, C)`` as they are stored in a file of this EXIF ``orientation`` (1 to 8)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 7, 8) else pixels
