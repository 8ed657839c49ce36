"""Images from file to file in bounded memory: read in windows, labelled in tiles, written row by row.

What has been labelled stands in a hidden folder beside the result until that is whole, so that a run that was killed
goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.mask_rows import write_geotiff_rows, write_png_rows
from atrous.data.files.rasters import TIFF_SUFFIXES, EightBits, Raster, import_rasterio, open_raster
from atrous.inference.memory import fits
from atrous.inference.prepare import PreparedModel
from atrous.inference.test_time import Inference
from atrous.inference.tiles import Tiling, label_strips
from atrous.labels import IGNORE, LabelSet

WINDOWED = (*TIFF_SUFFIXES, ".npy", ".zarr")
"""The suffixes of files that are read in windows."""
LARGEST_PNG = 2**27
"""Pixels up to which the mask of a TIFF without a place on the earth is a PNG, which every program shows."""


@dataclass(frozen=True)
class Large:
    """How images are read in windows and cut into tiles.

    Args:
        tiling: the tiles; by default one of the whole image if the memory suffices for it, else those of
            :class:`~atrous.inference.tiles.Tiling`.
        bands: which bands of a raster become the network's channels, counted from 1; by default the first ones.
    """

    tiling: Tiling | None = None
    bands: tuple[int, ...] | None = None

    def tiles(self, network: PreparedModel, size: tuple[int, int]) -> Tiling:
        """The tiles of an image of this size."""
        if self.tiling:
            return self.tiling
        return Tiling(max(*size, 65), 0) if fits(network.model, size, network.device) else Tiling()


@dataclass(frozen=True)
class LargeResult:
    """A mask that was written row by row.

    Args:
        mask: its path.
        size: its height and width.
        pixels: of each class, ``C`` numbers.
        notes: on how the image was read, and whether an earlier run was continued.
    """

    mask: Path
    size: tuple[int, int]
    pixels: tuple[int, ...]
    notes: tuple[str, ...]


def is_windowed(path: Path) -> bool:
    """Whether an image is read in windows: an array, or a TIFF if rasterio is installed."""
    suffix = path.suffix.lower()
    return suffix in WINDOWED and (suffix not in TIFF_SUFFIXES or import_rasterio() is not None)


def label_raster(
    path: Path,
    base: Path,
    network: PreparedModel,
    inference: Inference,
    options: Large,
    *,
    made_with: str,
    text: dict[str, str],
    check: Callable[[Path], None],
    progress: Callable[[float], None] | None = None,
) -> LargeResult:
    """Find the labels of an image file, and write them beside ``base``: a GeoTIFF ``base.tif`` for TIFFs that know
    their place on the earth or are very large, else a palette PNG ``base.png``.

    Args:
        path: of the image.
        base: of the result, without its suffix.
        network: to run.
        inference: how a tile becomes labels.
        options: how the image is read and cut.
        made_with: a hash of all that the labels depend on besides the image.
        text: metadata of the result.
        check: called with the path of the result before the work; it raises if that must not be replaced.
        progress: called with the share of the rows that have labels, 0–1.

    Raises:
        ImageError: the file is missing or damaged, or has other bands than the network takes.
        OSError: the result can't be written.
    """
    with open_raster(path) as raster:
        values = EightBits(raster, network.model.backbone.in_channels, options.bands, str(path))
        size = raster.height, raster.width
        georeferenced = raster.georeference is not None or raster.height * raster.width > LARGEST_PNG
        tiff = georeferenced and import_rasterio() is not None
        target = base.with_name(base.name + (".tif" if tiff else ".png"))
        check(target)
        tiling = options.tiles(network, size)
        key = f"{made_with} {_identity(path)} {tiling} {options.bands} {inference}"
        store = LabelStore(base.with_name(f".{base.name}.labels"), key, raster.width)
        notes = [*values.notes]
        if store.rows:
            notes.append(f"an earlier run is continued from row {store.rows} of {raster.height}")
        try:
            for row in _fill(store, raster, values, network, inference, tiling):
                if progress:
                    progress(row / raster.height)
            label_set = network.model.label_set
            counts = np.zeros(256, np.int64)
            rows = _counted(store.strips(), counts)
            if tiff:
                write_geotiff_rows(target, rows, size, label_set, raster.georeference, text)
            else:
                write_png_rows(target, rows, size, label_set, text)
        except Exception:
            store.remove()  # the image or the disk is at fault: another run would not get further
            raise
        store.remove()
    return LargeResult(target, size, tuple(map(int, counts[: len(label_set)])), tuple(notes))


def _fill(
    store: LabelStore, raster: Raster, values: EightBits, network: PreparedModel, inference: Inference, tiling: Tiling
) -> Iterator[int]:
    """Label the rows that the store lacks; yields how many rows have labels."""
    size = raster.height, raster.width
    with network.running():
        strips = label_strips(
            network,
            lambda rows, columns: values.read(rows, columns)[0],
            size,
            inference,
            tiling,
            device=network.device,
            start=store.rows,
        )
        for top, labels in strips if store.rows < raster.height else ():
            absent = values.read((top, top + len(labels)), (0, raster.width))[1] if raster.nodata is not None else None
            store.append(labels if absent is None else np.where(absent, np.uint8(IGNORE), labels))
            yield store.rows


def _identity(path: Path) -> str:
    """What tells a file from another one, or from itself after a change."""
    status = path.stat()
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"


def _counted(strips: Iterator[NDArray[np.uint8]], counts: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The same strips; the pixels of each label are added up."""
    for strip in strips:
        counts += np.bincount(strip.reshape(-1), minlength=256)
        yield strip


class LabelStore:
    """Rows of labels on disk, appended as they are found, for the run that found them and one that continues it.

    Args:
        folder: that holds them; one of another run is emptied.
        key: of the run.
        width: of a row in pixels.

    Attributes:
        rows: how many there are.
    """

    def __init__(self, folder: Path, key: str, width: int) -> None:
        self.folder, self.width = folder, width
        self.data, name = folder / "labels", folder / "key"
        digest = blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        if not (name.is_file() and name.read_text(encoding="ascii") == digest):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            name.write_text(digest, encoding="ascii")
        self.rows = self.data.stat().st_size // width if self.data.exists() else 0
        with self.data.open("ab") as file:
            file.truncate(self.rows * width)  # a row that was cut off

    def append(self, labels: NDArray[np.uint8]) -> None:
        """Add rows ``(rows, W)``."""
        with self.data.open("ab") as file:
            file.write(np.ascontiguousarray(labels).tobytes())
        self.rows += len(labels)

    def strips(self, rows: int = 512) -> Iterator[NDArray[np.uint8]]:
        """All rows, some at a time."""
        with self.data.open("rb") as file:
            while content := file.read(rows * self.width):
                yield np.frombuffer(content, np.uint8).reshape(-1, self.width)

    def remove(self) -> None:
        """Delete them."""
        shutil.rmtree(self.folder, ignore_errors=True)


def areas_of(pixels: Sequence[int], label_set: LabelSet) -> dict[str, int]:
    """The pixels of each class that is present, largest first."""
    found = {name: count for name, count in zip(label_set.names, pixels, strict=True) if count}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
