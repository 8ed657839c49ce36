"""Decoding images of any format into upright uint8 RGB.

The first frame of the file is turned by its EXIF orientation and brought to RGB: grey is repeated, 16-bit values keep
their high byte, CMYK is converted, and transparent parts are laid over white (what a browser or a printer shows; the
colours under a transparent pixel are leftovers of the editor). Colour profiles are not applied.

Plain JPEGs go through OpenCV, TIFFs that Pillow misreads through tifffile, and the rest through Pillow. On 300 VOC
images OpenCV and Pillow gave the same bytes, and OpenCV decoded 490–510 a second on one core against Pillow's 380–420.
PNG stays with Pillow: OpenCV gains at most a quarter there, and fills the terminal with libpng's warnings about colour
profiles.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from atrous.data.files.eight_bits import dark_note, to_8_bit
from atrous.data.files.exif import TURNS, Pixels, jpeg_orientation, orientation_of, turn, upright_size
from atrous.data.files.limits import check_pixels, read_file
from atrous.data.files.partial import FORMATS, partial_note
from atrous.data.files.pillow import open_with_pillow, refuse_misread, unread_bands
from atrous.data.files.signatures import describe
from atrous.data.files.tiff import left_out, opencv_reads, pillow_reads, read_tiff
from atrous.data.files.tiff_tags import BIG_ENDIAN_BIGTIFF, TiffPage, main_page, read_pages, refuse_missing
from atrous.errors import InputError

_AT_ONCE = 2**20
"""Pixels that are converted at once."""


class ImageError(InputError):
    """An image that can't be read; the message names the file, what was found and expected, and the fix."""


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image, with notes on how it was read.

    Args:
        pixels: uint8 RGB ``(H, W, 3)``, upright, writable; or what is stored (:mod:`atrous.data.files.stored`).
        notes: sentences such as "animation of 12 frames; only the first is read"; empty for an ordinary image.
        orientation: EXIF orientation, 1 to 8, by which the stored pixels were turned; 1 if they were upright.
        partial: the note, one of ``notes``, that the file was probably only partly copied; empty for others.
        absent: bool ``(H, W)``, the pixels that were not measured, if there are any.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    orientation: int = 1
    partial: str = ""
    absent: NDArray[np.bool_] | None = None


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
    return decode_image(read_image_file(path), str(path))


def read_image_file(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        ImageError: missing, a folder, not readable, or larger than the limit of :mod:`atrous.data.files.limits`.
    """
    try:
        return read_file(path)
    except InputError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the name{_nearby(path)}") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, expected an image; name a file in it") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened ({error.strerror or error}); check that you may read it") from None


def image_size(path: Path) -> tuple[int, int]:
    """The upright height and width of an image, from its header where Pillow can read it.

    Raises:
        ImageError: missing, or not a readable image.
    """
    try:
        with open_with_pillow(path) as image:
            return upright_size(image)
    except Exception:  # what Pillow can't open, our decoder may; if not, its error is the reason
        height, width = open_image(path).pixels.shape[:2]
        return height, width


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
        return _decode_jpeg(data) or _decode_tiff(data) or _decode_with_pillow(data)
    except InputError as error:
        raise ImageError(f"{name}: {error}") from error
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {describe(data)}; expected an image (JPEG, PNG, WebP, TIFF, BMP or GIF)") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it; cut it into smaller images") from None
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise ImageError(
            f"{name}: a damaged image ({str(error) or type(error).__name__}; the file has {len(data):,} bytes), "
            "expected a complete one; copy or download it again"
        ) from error


def _decode_jpeg(data: bytes) -> DecodedImage | None:
    """Decode a plain JPEG with OpenCV; None for other files, and for damaged ones, whose reason Pillow raises."""
    if not (size := _plain_jpeg_size(data)):
        return None
    check_pixels(*size)
    with contextlib.suppress(cv2.error):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)  # upright
        if pixels is not None:
            return _noting_partial(data, DecodedImage(np.asarray(pixels, np.uint8), (), jpeg_orientation(data)))
    return None


def _decode_tiff(data: bytes) -> DecodedImage | None:
    """Decode a TIFF that Pillow misreads or does not recognise; None for other files."""
    pages = read_pages(data)
    if not pages:
        return None
    page = main_page(pages)
    refuse_missing(page)
    notes = []
    if page is not pages[0]:
        notes.append(f"the file begins with a thumbnail, {pages[0].width}×{pages[0].height}; its main image is read")
    elif pillow_reads(page) and not data.startswith(BIG_ENDIAN_BIGTIFF):
        return None
    elif more := sum(other.place[1] is None and not other.reduced for other in pages[1:]):
        notes.append(f"document of {more + 1} pages; only the first is read")
    pixels, stretched = _decode_floats(data, page) or read_tiff(data, page)
    orientation = page.orientation if page.orientation in TURNS else 1
    return _noting_partial(data, DecodedImage(turn(pixels, orientation), (*notes, *stretched), orientation))


def _decode_floats(data: bytes, page: TiffPage) -> tuple[Pixels, list[str]] | None:
    """Decode a TIFF of colors in floating point with OpenCV; None for others, and where it fails."""
    if page.place != (0, None) or not opencv_reads(page):
        return None
    check_pixels(page.height, page.width, 3 + 4 * page.bands)
    with contextlib.suppress(cv2.error):
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is not None and values.shape == (page.height, page.width, page.bands):
            pixels, note = to_8_bit(values)
            return np.ascontiguousarray(pixels[..., ::-1]), [note] if note else []
    return None


def _decode_with_pillow(data: bytes) -> DecodedImage:
    with open_with_pillow(data) as image:
        if image.format in ("EPS", "WMF"):
            raise InputError(f"a {image.format} drawing, expected an image; export it as PNG")
        decoded = to_rgb(image)
    return _noting_partial(data, decoded) if image.format in FORMATS else decoded


def _noting_partial(data: bytes, decoded: DecodedImage) -> DecodedImage:
    note = partial_note(data, decoded.pixels, decoded.orientation)
    return replace(decoded, notes=(*decoded.notes, note), partial=note) if note else decoded


def to_rgb(image: Image.Image) -> DecodedImage:
    """Convert the current frame of an opened Pillow image of any mode to upright uint8 RGB ``(H, W, 3)``.

    Raises:
        InputError: a TIFF that Pillow misreads.
        Whatever else Pillow raises on a damaged file.
    """
    refuse_misread(image)
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photo with its preview or depth map
        what, part = ("document", "pages") if image.format == "TIFF" else ("animation", "frames")
        notes.append(f"{what} of {image.n_frames} {part}; only the first is read")  # type: ignore[attr-defined]
    bits, turned = _stored_bits(image), orientation_of(image)  # which loads a PNG
    image.load()
    if left := unread_bands(image):
        notes.append(left_out(left))
    if (left := orientation_of(image)) != 1:  # loading a TIFF turns it
        image = image.transpose(TURNS[left])
    if image.mode.startswith(("I", "F")):
        grey, note = to_8_bit(np.asarray(image), bits)
        notes += [note] if note else []
        return DecodedImage(np.repeat(grey[..., None], 3, axis=2), tuple(notes), turned)
    if bits == 16 and (note := dark_note(_highest_color(image) << 8 | 255)):
        notes.append(note)
    transparent = image.has_transparency_data and _lowest(image.convert("RGBA").getchannel("A")) < 255
    if transparent:
        notes.append("transparent parts are read as white")
    return DecodedImage(_to_array(image, transparent=transparent), tuple(notes), turned)


def _stored_bits(image: Image.Image) -> int:
    """Bits of a sample in the file of an image that is not loaded yet: 16 or 12, else 8, or 16 for modes I and F."""
    for tile in getattr(image, "tile", ()):
        mode = tile[3] if isinstance(tile[3], str) else tile[3][0] if isinstance(tile[3], tuple) and tile[3] else ""
        if isinstance(mode, str) and (found := re.search(r";(12|16)", mode)):
            return int(found[1])
    return 16 if image.mode.startswith(("I", "F")) else 8


def _lowest(band: Image.Image) -> int:
    return int(np.min(band.getextrema()))


def _highest_color(image: Image.Image) -> int:
    """The highest value of an image of several bands, alpha apart."""
    return max(int(np.max(image.getchannel(band).getextrema())) for band in image.getbands() if band not in "Aa")


def _to_array(image: Image.Image, *, transparent: bool) -> Pixels:
    """The RGB pixels of an image, in strips: conversions of the whole would each take as much memory again."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    step = max(1, _AT_ONCE // max(1, image.width))
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        if transparent:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        pixels[top : top + step] = np.asarray(strip.convert("RGB"))
    return pixels


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


def _nearby(path: Path) -> str:
    """Names in the same folder that differ only in suffix or case, as a hint."""
    with contextlib.suppress(OSError):
        alike = sorted(p.name for p in path.parent.iterdir() if p.stem.lower() == path.stem.lower())[:3]
        if alike:
            return f" (there is {', '.join(alike)})"
    return ""
