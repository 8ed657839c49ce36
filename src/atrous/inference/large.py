"""Images from file to file in bounded memory: read in windows, labelled in tiles, written row by row.

What has been labelled stands in a hidden folder beside the result until that is whole, so that a run that was killed
goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.eight_bits import shown_pixels, stretch
from atrous.data.files.exif import Pixels
from atrous.data.files.find import FoundImage
from atrous.data.files.mask_rows import write_geotiff_rows, write_png_rows
from atrous.data.files.raster_values import EightBits, StoredValues
from atrous.data.files.rasters import Raster, import_rasterio, open_raster
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.inference.fast import give_back_freed_memory
from atrous.inference.memory import fits, model_context
from atrous.inference.origin import Origin
from atrous.inference.pooling import with_image_means
from atrous.inference.prepare import PreparedModel
from atrous.inference.probability_rows import TakeProbabilities, write_probabilities
from atrous.inference.results import JSON, OVERLAY, PROBABILITY_BANDS, Done, Failed, Writer, describe_areas, failure
from atrous.inference.taken import image_form
from atrous.inference.test_time import Inference
from atrous.inference.tiles import ReadWindow, Tiling, label_strips
from atrous.labels import LabelSet, Mask, ignore_of
from atrous.models.base import SegmentationModel
from atrous.viz import encode_jpeg, overlay

TRIED = 2**20
"""Pixels up to which an image is not held against the memory that is free."""
LARGEST_PNG = 2**27
"""Pixels up to which the mask of a TIFF without a place on the earth is a PNG, which every program shows."""
_OVERVIEW = 4096
"""Longest side of an overlay."""


@dataclass(frozen=True)
class Large:
    """How images are read in windows and cut into tiles.

    Args:
        tiling: the tiles; by default one of the whole image if the memory suffices for it, else those of
            :class:`~atrous.inference.tiles.Tiling`, which overlap by what the network sees.
        bands: which bands of an image become the network's channels, counted from 1; by default the first ones.
        longest_side: pixels that the longest side of an image has in the network at most: a larger one is shrunk, and
            its labels are found at its own size. For images that are decoded whole.

    Raises:
        InputError: a longest side below 1.
    """

    tiling: Tiling | None = None
    bands: tuple[int, ...] | None = None
    longest_side: int | None = None

    def __post_init__(self) -> None:
        if self.longest_side is not None and self.longest_side < 1:
            raise InputError(f"the longest side is at least 1 pixel, not {self.longest_side}")

    def tiles(self, network: PreparedModel, size: tuple[int, int], inference: Inference) -> Tiling:
        """The tiles of an image of this size."""
        if not self.tiling and (size[0] * size[1] <= TRIED or fits(network.model, size, network.device)):
            return Tiling(max(*size, 65), 0)
        context = ceil(model_context(network.model).pixels / min(1, *inference.scales))
        return (self.tiling or Tiling()).fitted(context)


def seam_note(network: PreparedModel, tiling: Tiling) -> str:
    """A sentence on how tiles were cut, and what that changes."""
    cut = f"labelled in tiles of {tiling.tile} pixels that overlap by {tiling.shared}"
    if model_context(network.model).whole:
        return f"{cut}; this network looks at the whole image, so that some labels differ from those without tiles"
    if tiling.is_exact:
        return cut
    return (
        f"{cut}; this network sees {tiling.context} pixels to each side, so that some labels near the tiles' edges "
        f"differ from those without tiles (none with --overlap {2 * tiling.context})"
    )


def segment_raster(
    image: FoundImage, stem: Path, writer: Writer, network: PreparedModel, inference: Inference, large: Large
) -> tuple[Done | Failed, tuple[str, ...]]:
    """Segment an image that is read in windows, and write what the writer's options ask for: a GeoTIFF ``x.tif`` for a
    TIFF that knows its place on the earth or is very large, else a palette PNG.

    Args:
        image: that is read.
        stem: of the results, below the writer's folder.
        writer: knows which files may be replaced.
        network: to run.
        inference: how a tile becomes labels.
        large: how the image is read and cut.

    Returns:
        What was done, and notes on it.
    """
    try:
        return _segment_raster(image, stem, writer, network, inference, large)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        return failure(image, error), ()


def _segment_raster(
    image: FoundImage, stem: Path, writer: Writer, network: PreparedModel, inference: Inference, large: Large
) -> tuple[Done, tuple[str, ...]]:
    if writer.options.attention_maps:
        raise InputError("attention maps are not written for images that are read in windows")
    if writer.options.probabilities and inference.crf:
        raise InputError("of images that are read in windows, probabilities are written without a CRF: leave one out")
    if large.longest_side:
        raise InputError(
            "images that are read in windows are not shrunk (--longest-side): leave it out, or shrink the image, for "
            "example with gdal_translate -outsize 4000 0"
        )
    path, base, label_set = image.path, writer.out / stem, network.model.label_set
    with open_raster(path) as raster:
        tiff = raster.georeference is not None or raster.height * raster.width > LARGEST_PNG
        tiff = tiff and import_rasterio() is not None
        endings = [".tif" if tiff else ".png", *writer.options.windowed_endings]
        target, *beside = [base.with_name(base.name + ending) for ending in endings]
        writer.make_room(path, [target, *beside])
        values = _values(raster, network.model, large.bands, str(path))
        size = raster.height, raster.width
        tiling = large.tiles(network, size, inference)
        bands = len(label_set) if writer.options.probabilities else 0
        key = f"{writer.made_with} {_identity(path)} {tiling} {large.bands} {bands}"
        store = LabelStore(base.with_name(f".{base.name}.labels"), key, raster.width, label_set.dtype, bands)
        _check_room(store, size)
        notes = list(values.notes)
        if max(len(tiling.spans(side)) for side in size) > 1:
            notes.append(seam_note(network, tiling))
        if store.rows:
            notes.append(f"an earlier run is continued from row {store.rows} of {raster.height}")
        text = Origin.of(path, writer.made_with, writer.options.windowed_endings).text()
        try:
            _fill(store, raster, values, network, inference, tiling)
            pixels = np.zeros(label_set.ignore + 1, np.int64)
            rows = _counted(store.strips(), pixels)
            if tiff:
                write_geotiff_rows(target, rows, size, label_set, raster.georeference, text)
            else:
                write_png_rows(target, rows, size, label_set, text)
            if bands:
                place = base.with_name(f"{base.name}{PROBABILITY_BANDS}")
                write_probabilities(place, *store.arrays(), label_set, raster.georeference, text)
            found = _areas(pixels, label_set)
            if writer.options.json:
                description = describe_areas(path, size, found, label_set, notes)
                write_atomically(base.with_name(f"{base.name}{JSON}"), description)
            if writer.options.overlays:
                seen = encode_jpeg(_overview(store, values, network.model))
                write_atomically(base.with_name(f"{base.name}{OVERLAY}"), seen)
            writer.outline(target, label_set)
        except Exception:
            store.remove()  # the image or the disk is at fault: another run would not get further
            raise
        store.remove()
    total = size[0] * size[1]
    return Done(path, target, {name: count / total for name, count in found.items()}), tuple(notes)


def _values(
    raster: Raster, model: SegmentationModel, bands: tuple[int, ...] | None, name: str
) -> EightBits | StoredValues:
    """Windows of a raster as a model takes them: as they are stored, in the type and with the channels that its
    statistics were measured of, or with the channels of an ordinary network as 8 bits.
    """
    form, known = image_form(model), model.preprocessing
    if form.dtype == "uint8" and not known.ranges:
        return EightBits(raster, form.channels, bands, name)
    return StoredValues(raster, form, name, bands, known.fill)


def _check_room(store: LabelStore, size: tuple[int, int]) -> None:
    """Refuse an image whose labels the disk has no room for, before hours of work: a byte or two a pixel, and one for
    each probability.

    Raises:
        InputError: too little is free.
    """
    bytes_each = store.dtype.itemsize + store.bands
    needed, free = (size[0] - store.rows) * size[1] * bytes_each, shutil.disk_usage(store.folder).free
    if needed > free:
        store.remove()
        raise InputError(
            f"{size[0]:,} × {size[1]:,} pixels, whose labels need {needed / 1e9:,.1f} GB on the disk of the results, "
            f"where {free / 1e9:,.1f} GB are free; choose another --out, or cut the image"
        )


def _fill(
    store: LabelStore,
    raster: Raster,
    values: EightBits | StoredValues,
    network: PreparedModel,
    inference: Inference,
    tiling: Tiling,
) -> None:
    """Label the rows that the store lacks."""
    size = raster.height, raster.width
    if store.rows == raster.height:
        return
    with network.running():
        take = store.append_probabilities if store.bands else None
        for top, labels in tiled_labels(network, values.read, size, inference, tiling, store.rows, take):
            if raster.tells_absent:
                absent = raster.absent(raster.read((top, top + len(labels)), (0, raster.width)))
                labels = np.where(absent, ignore_of(labels), labels)
            store.append(labels)
            give_back_freed_memory()


def tiled_labels(
    network: PreparedModel,
    read: ReadWindow,
    size: tuple[int, int],
    inference: Inference,
    tiling: Tiling,
    start: int = 0,
    on_probabilities: TakeProbabilities | None = None,
) -> Iterator[tuple[int, Mask]]:
    """Strips of labels as :func:`~atrous.inference.tiles.label_strips` gives them, with the image pooling of all tiles
    taken together.
    """
    pooled = with_image_means(network.model, read, tiling.spans(size[0]), tiling.spans(size[1]), network.device)
    ready = network if pooled is network.model else network.alike(pooled)
    yield from label_strips(
        ready,
        read,
        size,
        inference,
        tiling,
        device=network.device,
        start=start,
        on_probabilities=on_probabilities,
    )


def _areas(pixels: NDArray[np.int64], label_set: LabelSet) -> dict[str, int]:
    """The pixels of each class that is present, largest first."""
    found = {name: int(count) for name, count in zip(label_set.names, pixels, strict=False) if count}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _overview(store: LabelStore, values: EightBits | StoredValues, model: SegmentationModel) -> Pixels:
    """The overlay of every n-th pixel."""
    height, width = values.raster.height, values.raster.width
    step = ceil(max(height, width) / _OVERVIEW)
    images, labels, top = [], [], 0
    for strip in store.strips():
        first = -top % step
        images.append(values.read((top, top + len(strip)), (0, width))[first::step, ::step])
        labels.append(strip[first::step, ::step])
        top += len(strip)
    seen = np.concatenate(images)
    if model.preprocessing.ranges:
        seen = stretch(seen, *zip(*model.preprocessing.ranges, strict=True))
    return overlay(shown_pixels(seen), np.concatenate(labels), model.label_set)


def _identity(path: Path) -> str:
    """What tells a file from another one, or from itself after a change."""
    status = path.stat()
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"


def _counted(strips: Iterator[Mask], counts: NDArray[np.int64]) -> Iterator[Mask]:
    """The same strips; the pixels of each label are added up."""
    for strip in strips:
        counts += np.bincount(strip.reshape(-1), minlength=len(counts))
        yield strip


class LabelStore:
    """Rows of labels on disk, appended as they are found, for the run that found them and one that continues it.

    Args:
        folder: that holds them; one of another run is emptied.
        key: of the run.
        width: of a row in pixels.
        dtype: of a label.
        bands: of probabilities, bytes beside the labels; 0 for none.

    Attributes:
        rows: how many there are.
    """

    def __init__(
        self, folder: Path, key: str, width: int, dtype: type[np.unsignedinteger[Any]] = np.uint8, bands: int = 0
    ) -> None:
        self.folder, self.width, self.dtype, self.bands = folder, width, np.dtype(dtype), bands
        self.data, name = folder / "labels", folder / "key"
        digest = blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        if not (name.is_file() and name.read_text(encoding="ascii") == digest):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            name.write_text(digest, encoding="ascii")
        self.probabilities = folder / "probabilities"
        files = {self.data: width * self.dtype.itemsize} | ({self.probabilities: width * bands} if bands else {})
        self.rows = min(file.stat().st_size // size if file.exists() else 0 for file, size in files.items())
        for path, size in files.items():
            with path.open("ab") as file:
                file.truncate(self.rows * size)  # rows that were cut off, or that the other file lacks

    def append(self, labels: Mask) -> None:
        """Add rows ``(rows, W)``."""
        with self.data.open("ab") as file:
            file.write(np.ascontiguousarray(labels).tobytes())
        self.rows += len(labels)

    def append_probabilities(self, _: int, values: NDArray[np.uint8]) -> None:
        """Add the probabilities ``(bands, rows, W)`` of rows whose labels come next."""
        with self.probabilities.open("ab") as file:
            file.write(np.ascontiguousarray(values.transpose(1, 0, 2)).tobytes())

    def arrays(self) -> tuple[NDArray[np.uint8], Mask]:
        """Maps of the probabilities ``(H, bands, W)`` and the labels ``(H, W)``."""
        shape = self.rows, self.bands, self.width
        labels = np.memmap(self.data, self.dtype, "r", shape=(self.rows, self.width))
        return np.memmap(self.probabilities, np.uint8, "r", shape=shape), labels

    def strips(self, rows: int = 512) -> Iterator[Mask]:
        """All rows, some at a time."""
        with self.data.open("rb") as file:
            while content := file.read(rows * self.width * self.dtype.itemsize):
                yield np.frombuffer(content, self.dtype).reshape(-1, self.width)

    def remove(self) -> None:
        """Delete them."""
        shutil.rmtree(self.folder, ignore_errors=True)
