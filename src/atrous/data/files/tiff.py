"""Reading the TIFFs that Pillow and OpenCV misread: bands, planes, depths, and images behind a thumbnail.

It needs tifffile, of the extra ``geo``: ``pip install atrous[geo]``.
"""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.eight_bits import to_8_bit
from atrous.data.files.exif import Pixels
from atrous.data.files.limits import check_pixels
from atrous.data.files.tiff_tags import (
    ASSOCIATED,
    BLACK_IS_ZERO,
    CAMERA_RAW,
    DEFLATE,
    FLOAT,
    JPEG,
    LZW,
    PALETTE,
    RGB,
    SEPARATED,
    SIGNED,
    UNCOMPRESSED,
    UNDEFINED,
    UNSIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    TiffPage,
)
from atrous.errors import InputError

_GREY_READ_BY_PILLOW = {(UNSIGNED, 12), (UNSIGNED, 16), (SIGNED, 16), (SIGNED, 32), (FLOAT, 32)}
"""Sample formats and depths of BlackIsZero beyond 8 bits."""
_READ_BY_OPENCV = (UNCOMPRESSED, LZW, *DEFLATE)


def pillow_reads(page: TiffPage) -> bool:
    """Whether Pillow decodes a page rightly, which a test shows for each of these."""
    unsigned, depth = page.sample_format in (UNSIGNED, UNDEFINED), page.depth
    compressed = page.compression != UNCOMPRESSED
    if page.planar and depth != 8 and not compressed:
        return False
    if page.big_endian and compressed and depth > 8 and not (unsigned and depth == 16):  # bytes are swapped twice
        return False
    match page.photometric:
        case photometric if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
            if unsigned and depth in (1, 2, 4, 8):
                with_alpha = photometric == BLACK_IS_ZERO and depth == 8 and page.bands == 2 and bool(page.alpha)
                return page.bands == 1 or (with_alpha and not page.planar)
            deep = (page.sample_format, depth) in _GREY_READ_BY_PILLOW
            return page.bands == 1 and deep and photometric == BLACK_IS_ZERO
        case photometric if photometric == RGB:
            return unsigned and depth in (8, 16) and page.bands in (3, 4) and not (page.planar and page.bands == 4)
        case photometric if photometric == PALETTE:
            return unsigned and 0 < depth <= 8 and page.bands == 1
        case photometric if photometric == SEPARATED:
            return unsigned and depth in (8, 16) and page.bands == 4 and not page.planar
        case photometric if photometric == YCBCR:
            return unsigned and depth == 8 and page.bands in (1, 3)
    return False


def opencv_reads(page: TiffPage) -> bool:
    """Whether OpenCV decodes a page rightly that Pillow does not: colors in floating point."""
    floating = page.sample_format == FLOAT and page.depth == 32
    upright = page.orientation == 1 and not page.planar
    if page.compression not in _READ_BY_OPENCV:
        return False
    return floating and upright and page.photometric == RGB and page.bands == 3


def read_tiff(data: bytes, page: TiffPage) -> tuple[Pixels, list[str]]:
    """Read a page as RGB ``(H, W, 3)``, not yet turned, with notes on how it was read.

    Raises:
        InputError: bands that are not grey, RGB or CMYK; samples of a camera; or tifffile is not installed.
        Whatever else tifffile raises on a damaged file.
    """
    _refuse_other_bands(page)
    values = read_bands(data, page)
    colors = 4 if page.photometric == SEPARATED else 1 if page.bands - bool(page.alpha) == 1 else 3
    pixels, note = _to_8_bit(values[..., :colors], page)
    notes = [note] if note else []
    if page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and colors == 3:
        notes.append(f"{page}: its bands are read as red, green and blue")
    elif left := page.bands - colors - bool(page.alpha):
        notes.append(left_out(left))
    if page.photometric == WHITE_IS_ZERO:
        pixels = 255 - pixels
    if page.photometric == SEPARATED:
        pixels = np.array(Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes()).convert("RGB"))
    rgb = np.repeat(pixels, 3, axis=2) if colors == 1 else np.ascontiguousarray(pixels)
    if not page.alpha:
        return rgb, notes
    alpha = _alpha_to_8_bit(values[..., -1:], page)
    if alpha.min() < 255:
        notes.append("transparent parts are read as white")
    return _over_white(np.concatenate([rgb, alpha], axis=2), multiplied=page.alpha == ASSOCIATED), notes


def left_out(bands: int) -> str:
    """The note about bands beyond the colors."""
    return f"{bands} band{'s' if bands > 1 else ''} beyond red, green and blue left out"


def read_bands(data: bytes, page: TiffPage) -> NDArray[Any]:
    """Read all bands of a page as they are stored: ``(H, W, bands)``, of any type.

    Raises:
        InputError: it is too large, or tifffile is not installed.
        Whatever else tifffile raises on a damaged file.
    """
    check_pixels(page.height, page.width, 3 + page.bands * max(1, page.depth // 8))
    number, subordinate = page.place
    try:
        with _tifffile(page).TiffFile(io.BytesIO(data)) as file:
            found = file.pages[number]
            values = np.asarray((found if subordinate is None else found.pages[subordinate]).asarray(maxworkers=1))
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise InputError(f"a TIFF of {page}: {error}; pip install 'atrous[geo]'") from error
        raise
    if page.planar:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(*values.shape[:2], -1)
    if values.shape != (page.height, page.width, page.bands):
        raise InputError(f"a TIFF of {page} that contains an array of shape {values.shape}; save it again")
    return values


def _tifffile(page: TiffPage) -> ModuleType:
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f"a TIFF of {page}, which needs tifffile: pip install 'atrous[geo]', or save it as 8-bit RGB"
        ) from error
    return tifffile  # type: ignore[no-any-return]


def _refuse_other_bands(page: TiffPage) -> None:
    """Refuse what can't be read as RGB, whatever is installed.

    Raises:
        InputError: says what the page contains, and how to save it.
    """
    if page.photometric in CAMERA_RAW:
        raise InputError(f"raw data of a camera ({page}); develop it, and export it as TIFF, PNG or JPEG")
    grey = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and page.bands - bool(page.alpha) in (1, 3)
    colored = page.photometric == RGB and page.bands >= 3
    converted = page.photometric == YCBCR and page.compression == JPEG and page.bands == 3
    cmyk = page.photometric == SEPARATED and page.bands == 4 and page.sample_format == UNSIGNED
    numbers = page.depth and page.sample_format in (UNSIGNED, SIGNED, FLOAT, UNDEFINED)
    if not (numbers and (grey or colored or converted or cmyk)):
        raise InputError(
            f"a TIFF of {page}; expected a grey image (1 band) or red, green and blue (3 bands, and alpha if any), as "
            "models of RGB images take; choose three bands, for example with gdal_translate -b 1 -b 2 -b 3 -co "
            "PHOTOMETRIC=RGB"
        )


def _to_8_bit(values: NDArray[Any], page: TiffPage) -> tuple[Pixels, str | None]:
    if values.dtype == np.uint8 and page.depth == 8:
        return values, None
    if page.sample_format == SIGNED:
        return to_8_bit(values, 7 if page.depth == 8 else 16)
    return to_8_bit(values, min(page.depth, 16))


def _alpha_to_8_bit(alpha: NDArray[Any], page: TiffPage) -> Pixels:
    full = 1.0 if page.sample_format == FLOAT else float((1 << (page.depth - (page.sample_format == SIGNED))) - 1)
    if alpha.dtype == np.uint16 and page.depth == 16:
        return (alpha >> 8).astype(np.uint8)
    return np.rint(alpha.clip(0, full) * (255 / full)).astype(np.uint8)


def _over_white(rgba: Pixels, *, multiplied: bool) -> Pixels:
    """Lay colors with alpha ``(H, W, 4)`` over white."""
    image = Image.frombytes("RGBa" if multiplied else "RGBA", rgba.shape[1::-1], rgba.tobytes()).convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
