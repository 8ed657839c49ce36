"""Windows of a raster as a network takes them: as 8 bits, or as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.eight_bits import dark_note
from atrous.data.files.exif import Pixels
from atrous.data.files.image_form import ImageForm, Values, trained_dtype
from atrous.data.files.images import ImageError
from atrous.data.files.rasters import Raster, Span, TiffRaster
from atrous.data.files.turned import TurnedRaster

_ROWS = 512
"""Rows that are read at once to find the range of the values."""


class EightBits:
    """Windows of a raster as uint8, the way :func:`atrous.data.files.images.open_image` reads whole images: integers of
    up to 16 bits keep their highest 8, other values are stretched from the range of the whole raster to 0 to 255.

    Args:
        raster: to read from.
        channels: that a network takes. One band is repeated for three; of more bands the first are taken.
        bands: which bands to take, counted from 1, in this order.

    Attributes:
        notes: those of the raster, and how its values are read.

    Raises:
        ImageError: fewer bands than channels, or bands that it does not have.
    """

    def __init__(self, raster: Raster, channels: int, bands: Sequence[int] | None, name: str) -> None:
        self.raster = raster
        if isinstance(raster, TiffRaster):
            raster.require_complete()
        self.chosen = choose_bands(raster.bands, channels, bands, name)
        self.notes = raster.notes
        if isinstance(raster, TiffRaster) and raster.alpha in self.chosen:
            raster.read_alpha_as_values()
        self.low, self.high = (0.0, 255.0) if raster.dtype == np.uint8 else self._range()
        self.shift = 0 if raster.dtype == np.uint8 else None
        if raster.dtype in (np.uint16, np.int16) and self.low >= 0:
            self.shift = 8
            if note := dark_note(int(self.high)):
                self.notes = (*self.notes, note)
        elif self.shift is None:
            if self.low >= 0 and self.high <= 1:
                self.low, self.high = 0.0, 1.0
            stretched = f"{raster.dtype} values from {self.low:g} to {self.high:g} are read as 0 to 255"
            self.notes = (*self.notes, stretched)

    def read(self, rows: Span, columns: Span) -> Pixels:
        """A window as uint8 ``(h, w, channels)``."""
        return self._pixels(self.raster.read(rows, columns)[..., self.chosen])

    def _pixels(self, values: NDArray[Any]) -> Pixels:
        if self.shift is not None:
            kept: Pixels = np.ascontiguousarray((values >> self.shift).astype(np.uint8, copy=False))
            return kept
        wide = np.nan_to_num(values.astype(np.float32))
        scaled = (wide - self.low) * (255 / (self.high - self.low or 1))
        stretched: Pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return stretched

    def _range(self) -> tuple[float, float]:
        """The smallest and largest measured value of the whole raster."""
        lowest, highest = np.inf, -np.inf
        for top in range(0, self.raster.height, _ROWS):
            values = self.raster.read((top, min(top + _ROWS, self.raster.height)), (0, self.raster.width))
            chosen = values[..., self.chosen].astype(np.float32)
            measured = chosen[np.isfinite(chosen) & ~self.raster.absent(values)[..., None]]
            if measured.size:
                lowest, highest = min(lowest, float(measured.min())), max(highest, float(measured.max()))
        return (lowest, highest) if lowest <= highest else (0.0, 1.0)


def choose_bands(there: int, channels: int, bands: Sequence[int] | None, name: str) -> list[int]:
    """The bands of an image that become a network's channels, counted from 0.

    Args:
        there: how many bands the image has. A single one is repeated for three channels.
        channels: that the network takes.
        bands: which to take, counted from 1, in this order; by default the first ones.
        name: of the image, for errors.

    Raises:
        ImageError: fewer bands than channels, or bands that it does not have.
    """
    if bands is None:
        if there == 1 and channels == 3:
            return [0, 0, 0]
        bands = range(1, channels + 1)
    elif len(bands) != channels:
        raise ImageError(f"{name}: {len(bands)} bands chosen, but the network takes {channels}")
    if beyond := [band for band in bands if not 1 <= band <= there]:
        raise ImageError(
            f"{name}: {there} band{'s' if there > 1 else ''}, expected band {beyond[0]} for a network of "
            f"{channels} channels; choose others, or use a model trained on {there}"
        )
    return [band - 1 for band in bands]


class StoredValues:
    """Windows of a raster as it is stored, for a network of such images.

    Args:
        raster: to read from.
        form: what is expected.
        name: of the image, for errors.
        bands: which bands are the channels, counted from 1, in this order; by default all, but for an alpha band.
        fill: what channels have where they were not measured; by default their mean in the window.

    Raises:
        ImageError: values of another type than the form's, or another number of channels.
    """

    def __init__(
        self, raster: Raster, form: ImageForm, name: str, bands: Sequence[int] | None = None, fill: Sequence[float] = ()
    ) -> None:
        self.raster, self.form, self.fill = raster, form, tuple(fill)
        self.notes = raster.notes
        stored = raster.stored if isinstance(raster, TurnedRaster) else raster
        alpha = stored.alpha if isinstance(stored, TiffRaster) else None
        if isinstance(stored, TiffRaster):
            stored.require_complete()
        there = [band for band in range(raster.bands) if band != alpha or raster.bands == form.channels]
        there = there * 3 if form.is_rgb and len(there) == 1 else there
        dtype = trained_dtype(raster.dtype)
        if dtype != form.dtype or (bands is None and len(there) != form.channels):
            found = f"{len(there)} channel{'s' if len(there) > 1 else ''} of {raster.dtype}"
            raise ImageError(f"{name}: {found}, expected {form}; {_remedy(dtype, form)}")
        self.chosen = there if bands is None else choose_bands(raster.bands, form.channels, bands, name)
        if isinstance(stored, TiffRaster) and alpha in self.chosen:
            stored.read_alpha_as_values()

    def read(self, rows: Span, columns: Span) -> Values:
        """A window ``(h, w, C)`` of the form's type, all of it finite."""
        return self.read_measured(rows, columns)[0]

    def read_measured(self, rows: Span, columns: Span) -> tuple[Values, NDArray[np.bool_]]:
        """A window, and which of its pixels were not measured: bool ``(h, w)``."""
        stored = self.raster.read(rows, columns)
        absent = self.raster.absent(stored)
        values = np.ascontiguousarray(stored[..., self.chosen].astype(self.form.dtype, copy=False))
        missing = np.broadcast_to(absent[..., None], values.shape)
        if values.dtype.kind == "f":
            missing = missing | ~np.isfinite(values)
            absent = missing.all(axis=2)
        if missing.any():
            for channel in range(values.shape[2]):
                here, gone = values[..., channel], missing[..., channel]
                measured = here[~gone]
                mean = self.fill[channel] if self.fill else measured.mean(dtype=np.float64) if measured.size else 0
                here[gone] = mean if here.dtype.kind == "f" else round(float(mean))
        return values, absent


def _remedy(dtype: str, form: ImageForm) -> str:
    if dtype != form.dtype:
        kinds = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}
        return f"convert it (gdal_translate -ot {kinds[form.dtype]}), with values on the scale of the training data"
    return "store the bands of the training data (gdal_translate -b 1 -b 2 ...), or choose them (predict --bands)"
