"""Images read in windows, so that memory does not grow with them: TIFFs and GeoTIFFs of any size, ``.npy`` and Zarr
arrays; other images are decoded whole, within the limit of :mod:`atrous.data.files.limits`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.images import ImageError, open_image
from atrous.data.files.turned import TurnedRaster, tiff_orientation

TIFF_SUFFIXES = (".tif", ".tiff")
ARRAY_SUFFIXES = (".npy", ".zarr")
CACHE_BYTES = 64 * 2**20
"""What GDAL may keep of the blocks that it has read or is to write."""
WHOLE = 2**24
"""Pixels up to which a TIFF without a place on the earth is decoded whole, like any other image."""
_OPENING = threading.Lock()

Span = tuple[int, int]
"""First row or column, and the one after the last."""


@dataclass(frozen=True)
class Georeference:
    """Where a raster lies on the earth.

    Args:
        crs: coordinate reference system, as WKT; None if the file names none.
        transform: the six numbers (a, b, c, d, e, f) of ``x = a · column + b · row + c``, ``y = d · column + e · row +
            f``, from the upper left corner of the first pixel on.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]


class Raster(Protocol):
    """An image of which any window can be read.

    Attributes:
        height, width, bands: its size.
        dtype: of its values.
        georeference: where it lies on the earth, if that is known.
        tells_absent: whether it knows pixels that were not measured.
        notes: sentences on how it is read.
    """

    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    georeference: Georeference | None
    tells_absent: bool
    notes: tuple[str, ...]

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        """The values of a window, ``(h, w, bands)``.

        Raises:
            ImageError: the file is damaged there.
        """

    def absent(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which pixels of a window ``(h, w, bands)`` were not measured: ``(h, w)``."""


class ArrayRaster:
    """An array in memory or on disk as a :class:`Raster`.

    Args:
        values: ``(H, W)`` or ``(H, W, bands)``; anything that NumPy's slices read, such as a memory map.
        notes: on how it is read.
    """

    georeference: Georeference | None = None
    tells_absent = False

    def __init__(self, values: Any, notes: Sequence[str] = ()) -> None:
        self.values, self.notes = values, tuple(notes)
        self.height, self.width = values.shape[:2]
        self.bands = values.shape[2] if len(values.shape) == 3 else 1
        self.dtype = np.dtype(values.dtype)

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        window = np.asarray(self.values[slice(*rows), slice(*columns)])
        return window.reshape(*window.shape[:2], self.bands)

    def absent(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.zeros(values.shape[:2], bool)


class TiffRaster:
    """A TIFF or GeoTIFF that is read by rasterio, block by block.

    Args:
        dataset: of rasterio, opened for reading.
        path: of the file, for errors.
    """

    def __init__(self, dataset: Any, path: Path) -> None:
        from rasterio.enums import ColorInterp, Interleaving  # type: ignore[import-untyped]

        self.dataset, self.path = dataset, path
        self.height, self.width, self.bands = dataset.height, dataset.width, dataset.count
        self.dtype = np.dtype(dataset.dtypes[0])
        self._by_band, self.palette = Interleaving.band, None
        colors = dataset.colorinterp
        if colors[0] == ColorInterp.palette:
            table = dataset.colormap(1)
            self.palette = np.array([table.get(value, (0, 0, 0))[:3] for value in range(256)], np.uint8)
            self.bands, self.dtype = 3, np.dtype(np.uint8)
        elif colors[0] == ColorInterp.cyan:
            raise ImageError(f"{path}: a TIFF in CMYK; expected RGB: convert it, for example with ImageMagick")
        self.alpha = colors.index(ColorInterp.alpha) if ColorInterp.alpha in colors else None
        self.nodata = None if self.palette is not None else dataset.nodata
        self.tells_absent = self.alpha is not None or self.nodata is not None
        self.georeference = None
        if dataset.crs or not dataset.transform.is_identity:
            crs = dataset.crs.to_wkt() if dataset.crs else None
            self.georeference = Georeference(crs, tuple(dataset.transform)[:6])
        lost = self.georeference is not None and not dataset.crs
        self.notes: tuple[str, ...] = ("it names no coordinate reference system",) if lost else ()

    def read_alpha_as_values(self) -> None:
        """Take the alpha band for one of measurements: many programs declare the fourth of any four bands as alpha."""
        self.alpha, self.tells_absent = None, self.nodata is not None

    @property
    def compression(self) -> str:
        """As rasterio calls it, such as DEFLATE; empty without one."""
        found = self.dataset.compression
        return str(found.name).upper() if found else ""

    def require_complete(self) -> None:
        """Refuse a file that lacks tiles, unless it says which value stands for pixels that are not there.

        Raises:
            ImageError: tiles are missing; they would be read as zeros.
        """
        if self.tells_absent or not (missing := list(self._missing_blocks())):
            return
        row, column = missing[0]
        raise ImageError(
            f"{self.path}: {len(missing):,} tiles are missing in the file (the first one from row {row}, column "
            f"{column}, on), expected all of them, or a nodata value, whose pixels are then ignored: gdal_edit.py "
            "-a_nodata 0 FILE, or copy it again"
        )

    def _missing_blocks(self) -> Iterator[tuple[int, int]]:
        """The first row and column of each block that is not in the file."""
        height, width = self.dataset.block_shapes[0]
        planes = range(1, self.dataset.count + 1) if self.dataset.interleaving is self._by_band else (1,)
        for down, top in enumerate(range(0, self.height, height)):
            for across, left in enumerate(range(0, self.width, width)):
                item = f"BLOCK_OFFSET_{across}_{down}"
                if any(self.dataset.get_tag_item(item, "TIFF", bidx=band) is None for band in planes):
                    yield top, left

    def read_stored(self, rows: Span, columns: Span) -> NDArray[Any]:
        """A window ``(h, w, bands)`` without palette.

        Raises:
            ImageError: the file is damaged there.
        """
        try:
            with _limited_cache():
                values = self.dataset.read(window=(rows, columns))
        except rasterio_errors() as error:
            raise ImageError(
                f"{self.path}: a damaged TIFF (rows {rows[0]} to {rows[1]} can't be read: {error}); expected a "
                "complete one; copy or download it again"
            ) from error
        return np.moveaxis(values, 0, -1)

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        values = self.read_stored(rows, columns)
        return values if self.palette is None else self.palette[values[..., 0]]

    def absent(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        if self.alpha is not None:
            return np.asarray(values[..., self.alpha] == 0)
        if self.nodata is None:
            return np.zeros(values.shape[:2], bool)
        missing = np.isnan(values) if np.isnan(self.nodata) else values == np.asarray(self.nodata).astype(values.dtype)
        return np.asarray(missing.all(axis=2))


@contextmanager
def open_raster(path: str | Path) -> Iterator[Raster]:
    """Open an image to read windows of it.

    TIFFs are read by rasterio (``pip install 'atrous[geo]'``), ``.npy`` files as memory maps, folders that end in
    ``.zarr`` by zarr; everything else is decoded whole.

    Raises:
        ImageError: the file is missing, damaged, or not an image; its bands differ in type; or what it needs is not
            installed.
    """
    path = Path(path)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        yield ArrayRaster(_open_array(path))
        return
    rasterio = import_rasterio() if path.suffix.lower() in TIFF_SUFFIXES and path.is_file() else None
    if rasterio is None:
        decoded = open_image(path)
        yield ArrayRaster(decoded.pixels, decoded.notes)
        return
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        raster = _open_tiff(path)
        try:
            yield raster
        finally:
            close_raster(raster)


@contextmanager
def _limited_cache() -> Iterator[None]:
    """GDAL's own limit is 5 % of the machine's memory, in each process."""
    import rasterio  # type: ignore[import-untyped]

    if rasterio.env.hasenv():
        yield
        return
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


def open_kept(path: Path) -> Raster:
    """Open a TIFF or an array to read windows of it until :func:`close_raster`.

    Raises:
        ImageError: as :func:`open_raster`.
    """
    return ArrayRaster(_open_array(path)) if path.suffix.lower() in ARRAY_SUFFIXES else _open_tiff(path)


def close_raster(raster: Raster) -> None:
    """Close the file of a raster."""
    stored = raster.stored if isinstance(raster, TurnedRaster) else raster
    if isinstance(stored, TiffRaster):
        stored.dataset.close()


def _open_tiff(path: Path) -> Raster:
    try:
        dataset = open_dataset(path)
    except rasterio_errors() as error:
        raise ImageError(f"{path}: expected a TIFF, but {error}; copy or download it again") from error
    try:
        if len(set(dataset.dtypes)) > 1:
            raise ImageError(
                f"{path}: bands of different types ({', '.join(dataset.dtypes)}), expected one; convert them with "
                "gdal_translate -ot"
            )
        raster, orientation = TiffRaster(dataset, path), tiff_orientation(path)
    except Exception:
        dataset.close()
        raise
    if orientation == 1 or raster.georeference is not None:  # a transform speaks of the stored pixels
        return raster
    return TurnedRaster(raster, orientation)


def is_windowed(path: Path, channels: int = 3, dtype: str = "uint8") -> bool:
    """Whether an image is read in windows: an array, or a TIFF that knows its place on the earth, is large, or is for a
    network of other channels than red, green and blue of 8 bits, which decoding would make of it; if rasterio is
    installed.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        return path.exists()
    if suffix not in TIFF_SUFFIXES or import_rasterio() is None or not path.is_file():
        return False
    try:
        with open_raster(path) as raster:
            return (
                channels != 3
                or dtype != "uint8"
                or raster.georeference is not None
                or raster.height * raster.width > WHOLE
            )
    except ImageError:  # reading it as an ordinary image says what is wrong
        return False


def import_rasterio() -> ModuleType | None:
    """rasterio, of the extra ``geo``, if it is installed."""
    try:
        import rasterio
        import rasterio.errors  # type: ignore[import-untyped]
    except ImportError:
        return None
    return rasterio  # type: ignore[no-any-return]


def open_dataset(path: Path, mode: str = "r", **profile: Any) -> Any:
    """Open a dataset of rasterio, without its warning that an image has no place on the earth."""
    import rasterio

    with _OPENING, warnings.catch_warnings():  # which is of the whole process
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


def rasterio_errors() -> tuple[type[Exception], ...]:
    """What rasterio raises on files that it can't read or write."""
    from rasterio._err import CPLE_BaseError  # type: ignore[import-untyped]
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError, OSError


def _open_array(path: Path) -> Any:
    try:
        if path.suffix == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            import zarr  # type: ignore[import-not-found, unused-ignore]

            values = zarr.open_array(path, mode="r")
    except ImportError as error:
        raise ImageError(f"{path}: a Zarr array, which needs zarr: pip install zarr") from error
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error) or type(error).__name__
        raise ImageError(f"{path}: not a readable array ({reason}); write it again") from error
    if len(values.shape) not in (2, 3) or 0 in values.shape or np.dtype(values.dtype).kind not in "uifb":
        raise ImageError(
            f"{path}: an array {tuple(values.shape)} of {values.dtype}; expected numbers (H, W) or (H, W, bands)"
        )
    return values
