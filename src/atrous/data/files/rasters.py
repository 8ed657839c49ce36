"""Images read in windows, so that memory does not grow with them: TIFFs and GeoTIFFs of any size, ``.npy`` and Zarr
arrays; other images are decoded whole, within the limit of :mod:`atrous.data.files.limits`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.eight_bits import dark_note
from atrous.data.files.exif import Pixels
from atrous.data.files.images import ImageError, open_image
from atrous.data.files.turned import TurnedRaster, tiff_orientation

TIFF_SUFFIXES = (".tif", ".tiff")
ARRAY_SUFFIXES = (".npy", ".zarr")
CACHE_BYTES = 64 * 2**20
"""What GDAL may keep of the blocks that it has read or is to write."""
WHOLE = 2**24
"""Pixels up to which a TIFF without a place on the earth is decoded whole, like any other image."""
_ROWS = 512
"""Rows that are read at once to find the range of the values."""

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
        from rasterio.enums import ColorInterp  # type: ignore[import-untyped]

        self.dataset, self.path = dataset, path
        self.height, self.width, self.bands = dataset.height, dataset.width, dataset.count
        self.dtype = np.dtype(dataset.dtypes[0])
        self.palette = None
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

    def read(self, rows: Span, columns: Span) -> NDArray[Any]:
        try:
            values = self.dataset.read(window=(rows, columns))
        except rasterio_errors() as error:
            raise ImageError(
                f"{self.path}: a damaged TIFF (rows {rows[0]} to {rows[1]} can't be read: {error}); expected a "
                "complete one; copy or download it again"
            ) from error
        return np.moveaxis(values, 0, -1) if self.palette is None else self.palette[values[0]]

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
        try:
            dataset = open_dataset(path)
        except rasterio_errors() as error:
            raise ImageError(f"{path}: expected a TIFF, but {error}; copy or download it again") from error
        with dataset:
            if len(set(dataset.dtypes)) > 1:
                raise ImageError(
                    f"{path}: bands of different types ({', '.join(dataset.dtypes)}), expected one; convert them with "
                    "gdal_translate -ot"
                )
            raster, orientation = TiffRaster(dataset, path), tiff_orientation(path)
            if orientation == 1 or raster.georeference is not None:  # a transform speaks of the stored pixels
                yield raster
            else:
                yield TurnedRaster(raster, orientation)


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
        import rasterio  # type: ignore[import-untyped]
        import rasterio.errors  # type: ignore[import-untyped]
    except ImportError:
        return None
    return rasterio  # type: ignore[no-any-return]


def open_dataset(path: Path, mode: str = "r", **profile: Any) -> Any:
    """Open a dataset of rasterio, without its warning that an image has no place on the earth."""
    import rasterio

    with warnings.catch_warnings():
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
