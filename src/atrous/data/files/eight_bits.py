"""From values of any depth to 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atrous.data.files.exif import Pixels

DARK = 4
"""Values below this fraction, 1 / DARK, of the range were probably stored in fewer bits, which becomes a note."""
_SAMPLED = 512
"""Rows and columns at most of which percentiles are found."""


def to_8_bit(values: NDArray[Any], bits: int = 16) -> tuple[Pixels, str | None]:
    """Values of any type as uint8, with a note if that is a matter of choice.

    Up to 8 bits, the range becomes 0 to 255; 9 to 16 bits keep the highest 8; other ranges are stretched.

    Args:
        values: of any shape, not empty.
        bits: of which integers were stored, if these are at most 16.
    """
    if values.dtype.kind in "iub" and values.min() >= 0 and values.max() < 1 << bits <= 65536:
        if bits <= 8:
            return np.rint(values * (255 / ((1 << bits) - 1))).astype(np.uint8), None
        return (values.astype(np.uint16) >> (bits - 8)).astype(np.uint8), dark_note(int(values.max()), bits)
    wide = np.nan_to_num(values.astype(np.float32))
    low, high = float(wide.min()), float(wide.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (wide - low) * (255 / (high - low or 1))
    return np.rint(scaled).astype(np.uint8), f"{values.dtype.name} values from {low:g} to {high:g} are read as 0 to 255"


def shown_pixels(values: NDArray[Any]) -> Pixels:
    """What is shown of an image ``(H, W, C)``, uint8 ``(H, W, 3)``: the first three channels, or the first one. Values
    of other types are stretched by channel, from their 2nd to their 98th percentile, which is for the eye alone.
    """
    seen = values[..., (0, 1, 2) if values.shape[2] > 2 else (0, 0, 0)]
    if seen.dtype == np.uint8:
        return np.ascontiguousarray(seen)
    sample = seen[:: -(-len(seen) // _SAMPLED), :: -(-seen.shape[1] // _SAMPLED)]
    return stretch(seen, *np.percentile(sample, (2, 98), axis=(0, 1)))


def stretch(values: NDArray[Any], low: ArrayLike, high: ArrayLike) -> Pixels:
    """Values ``(H, W, C)`` from ``low`` to ``high``, of each channel, as 0 to 255."""
    wide = values.astype(np.float32) - np.asarray(low, np.float32)
    reach = np.asarray(high, np.float32) - np.asarray(low, np.float32)
    pixels: Pixels = np.rint((wide * (255 / np.where(reach > 0, reach, 1))).clip(0, 255)).astype(np.uint8)
    return pixels


def dark_note(highest: int, bits: int = 16) -> str | None:
    """The note about an image of which only a fraction of the range is used; None for others."""
    if highest >= (1 << bits) // DARK:
        return None
    return (
        f"values up to {highest} are read as 0 to {(1 << bits) - 1}, which makes it dark; stretch it if it should not "
        "be"
    )
