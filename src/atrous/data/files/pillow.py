"""Opening files with Pillow: only what it decodes rightly, and what memory allows."""

from __future__ import annotations

import io
import threading
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from atrous.data.files.limits import check_pixels
from atrous.data.files.png import SIGNATURE, check_png
from atrous.data.files.tiff import pillow_reads
from atrous.data.files.tiff_tags import RGB, TiffPage, page_of, read_pages, refuse_missing
from atrous.errors import InputError

_pillow_limit = threading.Lock()


def open_with_pillow(source: bytes | Path) -> Image.Image:
    """Open a file, or its bytes, with Pillow; its pixels are not decoded yet.

    Raises:
        DecodeLimitError: the image is larger than :func:`~atrous.data.files.limits.decode_limit`.
        InputError: the bytes of a PNG with a wrong checksum, or a TIFF that Pillow misreads.
        UnidentifiedImageError, or whatever else Pillow raises on a damaged header.
    """
    if isinstance(source, bytes) and source.startswith(SIGNATURE):
        check_png(source)
    # Pillow warns from 90 megapixels on and refuses from 180 on; that limit is global, and ours is another one.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except UnidentifiedImageError:
            if isinstance(source, bytes) and (pages := read_pages(source)):
                raise InputError(_misread(pages[0])) from None
            raise
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    try:
        check_pixels(image.height, image.width)
        refuse_misread(image)
    except InputError:
        image.close()
        raise
    return image


def refuse_misread(image: Image.Image) -> None:
    """Refuse an opened TIFF that Pillow would decode wrongly.

    Raises:
        InputError: bands, depths or planes that it misreads, or a thumbnail.
    """
    page = _tiff_page(image)
    if page:
        refuse_missing(page)
    if page and page.reduced:
        raise InputError(f"a TIFF that begins with a thumbnail ({page}); expected the image itself on its first page")
    if page and not pillow_reads(page):
        raise InputError(_misread(page))


def _misread(page: TiffPage) -> str:
    return f"a TIFF of {page}, which Pillow misreads; save it again as PNG"


def unread_bands(image: Image.Image) -> int:
    """How many bands of an opened TIFF are neither colors nor alpha, and so not read."""
    page = _tiff_page(image)
    return page.bands - 3 if page and page.photometric == RGB and page.extra and not page.alpha else 0


def _tiff_page(image: Image.Image) -> TiffPage | None:
    if not isinstance(image, TiffImageFile):
        return None
    tags = {tag: value if isinstance(value, tuple) else (value,) for tag, value in dict(image.tag_v2).items()}
    tags = {tag: value for tag, value in tags.items() if all(isinstance(number, int) for number in value)}
    return page_of(tags, big_endian=image.tag_v2.prefix == b"MM")
