"""Images as they are stored, with all their channels and at their own depth: GeoTIFFs, TIFFs, ``.npy`` arrays, and
others where a dataset or a model says what is expected. Pixels that were not measured (nodata) are known as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from atrous.data.files.exif import orientation_of
from atrous.data.files.image_form import ImageForm, trained_dtype
from atrous.data.files.images import DecodedImage, ImageError, open_image, read_image_file
from atrous.data.files.limits import check_pixels
from atrous.data.files.pillow import open_with_pillow
from atrous.data.files.raster_values import StoredValues
from atrous.data.files.rasters import (
    ARRAY_SUFFIXES,
    TIFF_SUFFIXES,
    ArrayRaster,
    Raster,
    import_rasterio,
    open_raster,
)
from atrous.data.files.tiff_tags import BLACK_IS_ZERO, FLOAT, RGB, SIGNED, WHITE_IS_ZERO, TiffPage
from atrous.data.files.turned import TurnedRaster, read_main_page
from atrous.errors import InputError


def find_form(path: Path) -> ImageForm:
    """What an image contains, by its header.

    Arrays (``.npy``) have the channels and type that they are stored with. So have TIFFs whose bands are not colours:
    all but grey of 8 bits, RGB of 8 or 16 bits, palettes and the like. Every other file is an ordinary image, which is
    decoded as 8-bit RGB; so is one that can't be read, and reading it will say why.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in ARRAY_SUFFIXES:
            with open_raster(path) as array:
                dtype = trained_dtype(array.dtype)
                return ImageForm(array.bands, dtype, color=array.bands == 3 and dtype == "uint8")
        page = read_main_page(path) if suffix in TIFF_SUFFIXES else None
    except (InputError, OSError):
        return ImageForm()
    if page is None or not _is_measured(page):
        return ImageForm()
    bands = max(1, page.bands - bool(page.alpha))
    dtype = _dtype_of(page)
    return ImageForm(bands, dtype, color=page.photometric == RGB and bands >= 3 and dtype == "uint8")


def _is_measured(page: TiffPage) -> bool:
    """Whether the bands of a TIFF are measurements, which nothing should be made of, and not colours or 8-bit grey."""
    bands = page.bands - bool(page.alpha)
    if not page.depth:
        return False
    if page.photometric == RGB:
        return bands > 3
    grey = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    return grey and (bands not in (1, 3) or page.depth > 8 or page.sample_format in (SIGNED, FLOAT))


def _dtype_of(page: TiffPage) -> str:
    if page.sample_format == FLOAT or page.depth > 16:
        return "float32"
    if page.sample_format == SIGNED:
        return "int16"
    return "uint8" if page.depth <= 8 else "uint16"


def read_as(path: Path, form: ImageForm) -> DecodedImage:
    """Read an image that is to contain what a form says.

    Returns:
        Ordinary images as :func:`~atrous.data.files.images.open_image` decodes them; others as they are stored, in the
        form's type, where pixels that were not measured (``absent``) have the mean of the others.

    Raises:
        ImageError: it can't be read, or contains something else.
    """
    if form.is_rgb and path.suffix.lower() not in ARRAY_SUFFIXES:
        return open_image(path)
    with open_stored(path) as raster:
        values = StoredValues(raster, form, str(path))
        _check_size(raster, form, path)
        pixels, absent = values.read_measured((0, raster.height), (0, raster.width))
        orientation = raster.orientation if isinstance(raster, TurnedRaster) else 1
        return DecodedImage(pixels, raster.notes, orientation, absent=absent if absent.any() else None)


def stored_size(path: Path, form: ImageForm) -> tuple[int, int]:
    """Height and width of an image that contains what a form says; only its header is read, where that is possible.

    Raises:
        ImageError: as for :func:`read_as`.
    """
    with open_stored(path) as raster:
        StoredValues(raster, form, str(path))
        return raster.height, raster.width


def _check_size(raster: Raster, form: ImageForm, path: Path) -> None:
    try:
        check_pixels(raster.height, raster.width, 2 * form.channels * np.dtype(form.dtype).itemsize)
    except InputError as error:
        raise ImageError(f"{path}: {error}") from None


@contextmanager
def open_stored(path: Path) -> Iterator[Raster]:
    """Open an image with all its channels and at its own depth; TIFFs and arrays can be read in windows.

    Raises:
        ImageError: as :func:`~atrous.data.files.rasters.open_raster`; or a TIFF, and rasterio is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (*ARRAY_SUFFIXES, *TIFF_SUFFIXES):
        yield _decoded(path)
        return
    if suffix in TIFF_SUFFIXES and import_rasterio() is None:
        raise ImageError(f"{path}: reading the bands of a TIFF needs rasterio: pip install 'atrous[geo]'")
    with open_raster(path) as raster:
        yield raster


def _decoded(path: Path) -> Raster:
    """An image of another format, decoded whole."""
    data = read_image_file(path)
    try:
        with open_with_pillow(data) as image:
            orientation = orientation_of(image)
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise ImageError(f"{path}: not a readable image ({error}); copy or download it again") from error
    if values is None:
        raise ImageError(f"{path}: a format that is read as 8-bit RGB alone; save it as TIFF, PNG or .npy")
    if values.ndim == 3:  # OpenCV's order is blue, green, red
        values = values[..., (2, 1, 0, 3)[: values.shape[2]]]
    raster = ArrayRaster(values)
    return raster if orientation == 1 else TurnedRaster(raster, orientation)
