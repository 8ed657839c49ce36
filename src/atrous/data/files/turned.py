"""Rasters that are stored turned or mirrored, as TIFF's Orientation tag says, read upright in windows."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.exif import TURNS, turn_array
from atrous.data.files.tiff_tags import TiffPage, main_page, read_pages

if TYPE_CHECKING:
    from atrous.data.files.rasters import Raster, Span

_BESIDE = range(5, 9)
"""The orientations that make rows of columns."""


def read_main_page(path: Path) -> TiffPage | None:
    """The tags of the image that a TIFF is about; None if they can't be read."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pages = read_pages(cast(bytes, data))  # slices of a map are bytes
    return main_page(pages) if pages else None


def tiff_orientation(path: Path) -> int:
    """The orientation, 1 to 8, that a TIFF's tags name; 1 if they name none."""
    page = read_main_page(path)
    return page.orientation if page and page.orientation in TURNS else 1


class TurnedRaster:
    """A raster, upright.

    Args:
        stored: as the file has it.
        orientation: 2 to 8, of EXIF and TIFF.
    """

    def __init__(self, stored: Raster, orientation: int) -> None:
        self.stored, self.orientation = stored, orientation
        size = stored.height, stored.width
        self.height, self.width = size[::-1] if orientation in _BESIDE else size
        self.bands, self.dtype, self.georeference = stored.bands, stored.dtype, stored.georeference
        self.tells_absent, self.notes = stored.tells_absent, stored.notes

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        if self.orientation in _BESIDE:
            rows, columns = columns, rows
        if self.orientation in (3, 4, 6, 7):
            rows = self.stored.height - rows[1], self.stored.height - rows[0]
        if self.orientation in (2, 3, 7, 8):
            columns = self.stored.width - columns[1], self.stored.width - columns[0]
        values = np.moveaxis(self.stored.read(rows, columns), -1, 0)
        return np.moveaxis(turn_array(values, self.orientation), 0, -1)

    def absent(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        return self.stored.absent(values)
