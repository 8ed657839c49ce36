"""Training and evaluation on large rasters: windows of image and mask are read, never the whole.

A large image counts as many samples, its cells. A training crops anywhere around a cell, and reads no more than the
crop shows; an evaluation sees what lies around a cell too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import PairedDataset, Sample
from atrous.data.extras import Extras
from atrous.data.files.image_form import ImageForm, Values
from atrous.data.files.images import ImageError
from atrous.data.files.kept import kept_raster
from atrous.data.files.mask_windows import MaskWindows, mask_is_windowed
from atrous.data.files.masks import MaskRef
from atrous.data.files.orientation import shown
from atrous.data.files.raster_values import StoredValues
from atrous.data.files.rasters import ARRAY_SUFFIXES, TIFF_SUFFIXES, WHOLE, Span, import_rasterio
from atrous.errors import DatasetError
from atrous.labels import LabelSet, Mask, ignore_of

CELL = 1024
"""Side of a cell in pixels."""
MARGIN = 128
"""Pixels around a cell that an evaluation shows to the network."""


def is_large(image: Path, mask: MaskRef, form: ImageForm) -> bool:
    """Whether a pair is read in windows: a TIFF or an array of more than 16.8 megapixels, with a mask that can be read
    in windows too.
    """
    suffix = image.suffix.lower()
    if suffix not in (*TIFF_SUFFIXES, *ARRAY_SUFFIXES) or not mask_is_windowed(mask):
        return False
    if suffix in TIFF_SUFFIXES and import_rasterio() is None:
        return False
    try:
        raster = kept_raster(image)
    except ImageError:  # reading it whole says what is wrong
        return False
    return raster.height * raster.width > WHOLE and not (form.is_rgb and raster.dtype != np.uint8)


class WindowedPair:
    """An image and its mask, read in windows.

    Args:
        image: a TIFF or an array.
        mask: likewise.
        data: what both contain.

    Raises:
        ImageError, MaskError: a file can't be read, or has other channels.
        DatasetError: they differ in size.
    """

    def __init__(self, image: Path, mask: MaskRef, data: PairedDataset) -> None:
        raster = kept_raster(image)
        self.values = StoredValues(raster, data.extras.images, str(image))
        self.labels = MaskWindows(mask, data.form)
        self.name, self.size = image.name, (raster.height, raster.width)
        self._last: tuple[tuple[Span, Span], tuple[Values, NDArray[np.bool_]]] | None = None
        if self.labels.size != self.size:
            raise DatasetError(
                f"{image} is {shown(self.size)} but its mask {mask} is {shown(self.labels.size)}; both must have the "
                "same size"
            )

    def image(self, rows: Span, columns: Span) -> Values:
        """A window of the image ``(h, w, C)``."""
        return self._read(rows, columns)[0]

    def mask(self, rows: Span, columns: Span) -> Mask:
        """A window of the mask ``(h, w)``; pixels that were not measured are ignored."""
        absent = self._read(rows, columns)[1]
        return _ignoring(self.labels.read(rows, columns), absent)

    def absent(self, rows: Span, columns: Span) -> NDArray[np.bool_] | None:
        """The pixels of a window ``(h, w)`` that were not measured, if there are any."""
        absent = self._read(rows, columns)[1]
        return absent if absent.any() else None

    def _read(self, rows: Span, columns: Span) -> tuple[Values, NDArray[np.bool_]]:
        """The values of a window; those of the last one are kept, for its mask."""
        if self._last is None or self._last[0] != (rows, columns):
            self._last = (rows, columns), self.values.read_measured(rows, columns)
        return self._last[1]


def _ignoring(mask: Mask, absent: NDArray[np.bool_]) -> Mask:
    return np.where(absent, ignore_of(mask), mask)


class LazyWindow:
    """A window of a raster that looks like an array and is read where it is sliced by rows and columns.

    Args:
        read: reads a window.
        rows, columns: of this one.
        dtype: of the values.
        channels: the rest of the shape.
    """

    def __init__(self, read: Any, rows: Span, columns: Span, dtype: Any, *channels: int) -> None:
        self._read, self._rows, self._columns, self.dtype = read, rows, columns, np.dtype(dtype)
        self.shape = (rows[1] - rows[0], columns[1] - columns[0], *channels)
        self.size = int(np.prod(self.shape))

    def __getitem__(self, place: tuple[slice, slice]) -> Any:
        spans = []
        for part, span in zip(place, (self._rows, self._columns), strict=True):
            first, last, _ = part.indices(span[1] - span[0])
            spans.append((span[0] + first, span[0] + last))
        return self._read(*spans)


@dataclass(frozen=True)
class WindowedDataset:
    """A dataset some of whose images are large.

    Args:
        data: the pairs.
        cells: the samples: the number of a pair, and the rows and columns of a cell of it; None for the whole of an
            image that is not large.
    """

    data: PairedDataset
    cells: tuple[tuple[int, Span, Span] | tuple[int, None, None], ...]

    @classmethod
    def of(cls, data: PairedDataset) -> PairedDataset | WindowedDataset:
        """The dataset with its large images in cells; the dataset itself if it has none."""
        form = data.extras.images
        plain = not data.extras.layers and not data.extras.masks
        large = [plain and isinstance(image, Path) and is_large(image, mask, form) for image, mask in data.pairs]
        if not any(large):
            return data
        cells: list[Any] = []
        for number, ((image, _), in_cells) in enumerate(zip(data.pairs, large, strict=True)):
            if not in_cells:
                cells.append((number, None, None))
                continue
            assert isinstance(image, Path)
            raster = kept_raster(image)
            cells += [(number, *cell) for cell in cells_of((raster.height, raster.width))]
        return cls(data, tuple(cells))

    @property
    def name(self) -> str:
        return f"{self.data.name} ({len(self.data)} images in {len(self)} windows)"

    @property
    def label_set(self) -> LabelSet:
        return self.data.label_set

    @property
    def extras(self) -> Extras:
        return self.data.extras

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Sample:
        """A cell.

        Raises:
            DatasetError, ImageError, MaskError: as a :class:`~atrous.data.dataset.PairedDataset`.
        """
        number, rows, columns = self.cells[index]
        if rows is None or columns is None:
            return self.data[number]
        pair = self._pair(number)
        return Sample(
            pair.image(rows, columns),
            pair.mask(rows, columns),
            f"{pair.name}[{rows[0]}:{rows[1]}, {columns[0]}:{columns[1]}]",
            absent=pair.absent(rows, columns),
        )

    def surrounded(self, index: int) -> Sample:
        """A cell with what lies around it, which its mask ignores: what an evaluation sees."""
        number, rows, columns = self.cells[index]
        if rows is None or columns is None:
            return self.data[number]
        pair = self._pair(number)
        wide = [grown(span, MARGIN, side) for span, side in zip((rows, columns), pair.size, strict=True)]
        mask: Mask = np.full([span[1] - span[0] for span in wide], self.label_set.ignore, self.label_set.dtype)
        (top, _), (left, _) = wide
        inner = np.s_[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
        image = pair.image(wide[0], wide[1])
        mask[inner] = pair.mask(wide[0], wide[1])[inner]
        return Sample(image, mask, f"{pair.name}[{rows[0]}:{rows[1]}, {columns[0]}:{columns[1]}]")

    def region(self, index: int) -> Sample:
        """What a training crops from: a cell and half a cell around it, arrays that are read where they are sliced."""
        number, rows, columns = self.cells[index]
        if rows is None or columns is None:
            return self.data[number]
        pair = self._pair(number)
        down, across = (grown(span, CELL // 2, side) for span, side in zip((rows, columns), pair.size, strict=True))
        form = self.extras.images
        image: Any = LazyWindow(pair.image, down, across, form.dtype, form.channels)
        mask: Any = LazyWindow(pair.mask, down, across, self.label_set.dtype)
        return Sample(image, mask, pair.name)

    def _pair(self, number: int) -> WindowedPair:
        image, mask = self.data.pairs[number]
        assert isinstance(image, Path)
        return WindowedPair(image, mask, self.data)


def grown(span: Span, by: int, side: int) -> Span:
    """A span with so many pixels on both sides, as far as the image goes."""
    return max(0, span[0] - by), min(side, span[1] + by)


def cells_of(size: tuple[int, int], cell: int = CELL) -> Iterator[tuple[Span, Span]]:
    """The cells of an image: as even as possible, by rows."""
    spans = []
    for side in size:
        count = max(1, round(side / cell))
        edges = [round(place * side / count) for place in range(count + 1)]
        spans.append(list(pairwise(edges)))
    return ((rows, columns) for rows in spans[0] for columns in spans[1])
