"""Decoding images of any format into upright uint8 RGB.

The first frame of the file is turned by its EXIF orientation and brought to RGB: grey is repeated, 16-bit values keep
their high byte, CMYK is converted, and transparent parts are laid over white (what a browser or a printer shows; the
colours under a transparent pixel are leftovers of the editor). Colour profiles are not applied.

Plain JPEGs go through OpenCV, the rest through Pillow. On 300 VOC images both gave the same bytes, and OpenCV decoded
490–510 a second on one core against Pillow's 380–420. PNG stays with Pillow: OpenCV gains at most a quarter there, and
fills the terminal with libpng's warnings about colour profiles.
"""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from atrous.data.files.limits import check_pixels, read_file
from atrous.errors import InputError

Pixels = NDArray[np.uint8]

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow's names of the formats that contain JPEG pixels."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIGNATURES = (  # (offset, bytes, description and fix)
    (
        4,
        b"ftyphei",
        "a HEIC image, which Pillow cannot read; export it as JPEG (on an iPhone: Formats → Most Compatible)",
    ),
    (
        4,
        b"ftypmif1",
        "a HEIC image, which Pillow cannot read; export it as JPEG (on an iPhone: Formats → Most Compatible)",
    ),
    (4, b"ftyp", "a video or an image of the MP4 family; extract frames first, e.g. with ffmpeg"),
    (0, b"%PDF", "a PDF document; export its pages as PNG or JPEG"),
    (0, b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the image; run `git lfs pull`"),
    (0, b"<svg", "an SVG drawing; export it as PNG"),
    (0, b"<?xml", "an XML or SVG file; export it as PNG"),
    (0, b"<!", "a web page; the download probably returned an error page: fetch the image again"),
    (0, b"<html", "a web page; the download probably returned an error page: fetch the image again"),
    (0, b"\x93NUMPY", "a NumPy array; pass the array itself from Python, or save it as PNG"),
)


class ImageError(InputError):
    """An image that can't be read; the message names the file, what was found and expected, and the fix."""


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image, with notes on how it was read.

    Args:
        pixels: uint8 RGB ``(H, W, 3)``, upright, writable.
        notes: sentences such as "animation of 12 frames; only the first is read"; empty for an ordinary image.
        orientation: EXIF orientation, 1 to 8, by which the stored pixels were turned; 1 if they were upright.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    orientation: int = 1


def read_image(path: str | Path) -> Pixels:
    """Read an image as upright uint8 RGB ``(H, W, 3)``.

    Raises:
        ImageError: as :func:`open_image`.
    """
    return open_image(path).pixels


def open_image(path: str | Path) -> DecodedImage:
    """Read an image as upright uint8 RGB ``(H, W, 3)``, with notes on what was lost.

    Raises:
        ImageError: the file is missing, empty, a folder, damaged, not an image, or over the limit of
            :mod:`atrous.data.files.limits`.
    """
    path = Path(path)
    try:
        data = read_file(path)
    except InputError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the name{_nearby(path)}") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, expected an image; name a file in it") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened ({error.strerror or error}); check that you may read it") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "image") -> DecodedImage:
    """Decode the bytes of an image file as upright uint8 RGB ``(H, W, 3)``.

    Args:
        data: a complete file: JPEG, PNG, WebP, TIFF, BMP, GIF, or another format of Pillow or OpenCV.
        name: for errors.

    Raises:
        ImageError: the bytes are empty, damaged, not an image, or an image over the limit of
            :mod:`atrous.data.files.limits`.
    """
    if not data:
        raise ImageError(f"{name}: an empty file (0 bytes), expected an image; copy or download it again")
    try:
        if size := _plain_jpeg_size(data):
            check_pixels(*size)
            with contextlib.suppress(cv2.error):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)  # upright
                if pixels is not None:  # a truncated file gives None; Pillow then raises the reason
                    return DecodedImage(pixels, orientation=_jpeg_orientation(data))
        with open_with_pillow(data) as image:
            if image.format in ("EPS", "WMF"):
                raise ImageError(f"{name}: a {image.format} drawing, expected an image; export it as PNG")
            return to_rgb(image)
    except ImageError:
        raise
    except InputError as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        return _decode_exotic(data, name)
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it; cut it into smaller images") from None
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise ImageError(
            f"{name}: a damaged image ({str(error) or type(error).__name__}; the file has {len(data):,} bytes), "
            "expected a complete one; copy or download it again"
        ) from error


def to_rgb(image: Image.Image) -> DecodedImage:
    """Convert the current frame of an opened Pillow image of any mode to upright uint8 RGB ``(H, W, 3)``.

    Raises:
        Whatever Pillow raises on a damaged file.
    """
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photo with its preview or depth map
        what, part = ("document", "pages") if image.format == "TIFF" else ("animation", "frames")
        notes.append(f"{what} of {image.n_frames} {part}; only the first is read")  # type: ignore[attr-defined]
    turned = orientation_of(image)
    image.load()
    if (left := orientation_of(image)) != 1:  # loading a TIFF turns it
        image = image.transpose(_TURNS[left])
    if image.mode.startswith(("I", "F")):
        grey, note = _to_8_bit(np.asarray(image))
        notes += [note] if note else []
        return DecodedImage(np.repeat(grey[..., None], 3, axis=2), tuple(notes), turned)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            notes.append("transparent parts are read as white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return DecodedImage(np.array(image.convert("RGB")), tuple(notes), turned)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 if it has none, or none that is readable."""
    if image.format in JPEG_FORMATS:  # getexif would take it from XMP too, which OpenCV does not read
        return _jpeg_orientation(image.info.get("exif", b""))
    with contextlib.suppress(Exception):  # broken EXIF is common, and not a reason to refuse the image
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        return orientation if orientation in _TURNS else 1
    return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """The upright height and width of an opened image that is not loaded yet."""
    width, height = image.size
    turned = orientation_of(image) >= 5 and image.format != "TIFF"  # whose size is upright from the start
    return (width, height) if turned else (height, width)


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation in the bytes of a JPEG; Pillow would print a warning if EXIF is broken."""
    start = data.find(b"Exif\0\0") + 6
    if start < 6:
        return 1
    order: Literal["little", "big"] = "little" if data[start : start + 2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[start + at : start + at + size], order)

    table = number(4, 4)
    for entry in range(table + 2, table + 2 + 12 * number(table, 2), 12):
        if number(entry, 2) == ExifTags.Base.Orientation:
            return found if (found := number(entry + 8, 2)) in _TURNS else 1
    return 1


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels ``(H, W)`` or ``(H, W, 3)`` upright, by the EXIF ``orientation`` (1 to 8)."""
    if orientation == 1:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TURNS[orientation]))


def turn_array(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored values ``(..., H, W)`` of any dtype upright, by the EXIF ``orientation`` (1 to 8)."""
    if orientation >= 5:
        values = values.swapaxes(-1, -2)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(values[..., :: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG of one or three components (not CMYK), which OpenCV reads as Pillow does."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header, past any metadata
            size = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return size if data[at + 9] in (1, 3) else None
        at += 2 + length
    return None


_pillow_limit = threading.Lock()


def open_with_pillow(source: bytes | Path) -> Image.Image:
    """Open a file, or its bytes, with Pillow; its pixels are not decoded yet.

    Raises:
        DecodeLimitError: the image is larger than :func:`~atrous.data.files.limits.decode_limit`.
        UnidentifiedImageError, or whatever else Pillow raises on a damaged header.
    """
    # Pillow warns from 90 megapixels on and refuses from 180 on; that limit is global, and ours is another one.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    try:
        check_pixels(image.height, image.width)
    except InputError:
        image.close()
        raise
    return image


DARK = 16384
"""A 16-bit image with only lower values was probably stored in fewer bits, which becomes a note."""


def _to_8_bit(values: NDArray[np.generic]) -> tuple[Pixels, str | None]:
    """Values of more than 8 bits as uint8: 16-bit values keep the high byte, other ranges are stretched with a note."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535:
        highest = int(values.max())
        dark = f"values up to {highest} are read as 0 to 65535, which makes it dark; stretch it if it should not be"
        return (values.astype(np.uint16) >> 8).astype(np.uint8), dark if highest < DARK else None
    wide = np.nan_to_num(values.astype(np.float32))
    low, high = float(wide.min()), float(wide.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (wide - low) * (255 / (high - low or 1))
    return np.rint(scaled).astype(np.uint8), f"{values.dtype.name} values from {low:g} to {high:g} are read as 0 to 255"


def _decode_exotic(data: bytes, name: str) -> DecodedImage:
    """Decode what Pillow does not recognise: OpenCV reads colour TIFFs in floating point or in planes of 16 bits."""
    values = None
    if data.startswith((b"II", b"MM")):
        with contextlib.suppress(cv2.error):
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ImageError(f"{name}: {_describe(data)}; expected an image (JPEG, PNG, WebP, TIFF, BMP or GIF)")
    pixels, note = (values, None) if values.dtype == np.uint8 else _to_8_bit(values)
    rgb = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 2::-1])
    return DecodedImage(rgb, (note,) if note else ())


def _describe(data: bytes) -> str:
    start = data.lstrip()[:64].lower() if data[:1].isspace() else data[:64]
    for offset, signature, description in _SIGNATURES:
        if start[offset:].lower().startswith(signature.lower()):
            return description
    if start.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*", b"MM\0*", b"BM")):
        return f"an image whose header is damaged ({len(data):,} bytes); copy or download it again"
    return f"not an image: it begins with {start[:12]!r}"


def _nearby(path: Path) -> str:
    """Names in the same folder that differ only in suffix or case, as a hint."""
    with contextlib.suppress(OSError):
        alike = sorted(p.name for p in path.parent.iterdir() if p.stem.lower() == path.stem.lower())[:3]
        if alike:
            return f" (there is {', '.join(alike)})"
    return ""
