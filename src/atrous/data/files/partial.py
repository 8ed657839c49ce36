"""Signs that a file was only partly copied, although it decodes: what follows is filled with one color or pattern."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.exif import Pixels, as_stored

FORMATS = ("JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF")
"""Pillow's names of the formats that decode without their second half; PNG and GIF don't."""
_PERIOD = 16
"""Rows of the largest block of a JPEG: what follows its last bit repeats the last block, or a block of zeros."""
_SHARE = 0.1
_FEWEST_ROWS, _FEWEST_BYTES = 2 * _PERIOD, 256


def partial_note(data: bytes, pixels: Pixels, orientation: int) -> str:
    """The note about an image that was probably only partly copied; empty for others.

    Args:
        data: the file, in one of :data:`FORMATS`.
        pixels: decoded and upright, ``(H, W, 3)``.
        orientation: the file's, from EXIF.
    """
    rows = as_stored(pixels, orientation)
    share = _filled_rows(rows[::-1] if _is_upward(data) else rows) / len(rows)
    if share >= _SHARE:
        return (
            f"the last {share:.0%} of its rows are exactly one color or pattern, as in a file that was only partly "
            "copied; look at it, and copy it again"
        )
    share = _filled_bytes(data) / len(data)
    if share >= _SHARE:
        return f"the last {share:.0%} of the file are one repeated byte: it was only partly copied; copy it again"
    return ""


def _is_upward(data: bytes) -> bool:
    """Whether the file is a BMP that stores its last row first."""
    return data.startswith(b"BM") and int.from_bytes(data[22:26], "little", signed=True) > 0


def _filled_rows(rows: NDArray[np.uint8]) -> int:
    """How many of the last rows ``(H, W, C)`` repeat those 16 rows above them; 0 if they are few, or all, or a margin
    of the same color is on the other side too.
    """
    filled = 0
    while filled + _PERIOD < len(rows) and (rows[-1 - filled] == rows[-1 - filled - _PERIOD]).all():
        filled += 1
    margin = bool((rows[0] == rows[-1]).all())
    return 0 if filled < _FEWEST_ROWS or margin or filled + _PERIOD >= len(rows) else filled + _PERIOD


def _filled_bytes(data: bytes) -> int:
    """How many bytes at the end of a compressed image are the same; 0 for other formats, or if they are few."""
    if data.startswith(b"RIFF"):
        data = data[: 8 + int.from_bytes(data[4:8], "little")]
    elif data.startswith(b"\xff\xd8"):
        if data.rstrip(b"\0").endswith(b"\xff\xd9"):  # what follows the end is only padding
            data = data.rstrip(b"\0").removesuffix(b"\xff\xd9")
    else:
        return 0
    filled = len(data) - len(data.rstrip(data[-1:]))
    return filled if filled >= _FEWEST_BYTES else 0
