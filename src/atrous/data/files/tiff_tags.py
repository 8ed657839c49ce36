"""The tags of a TIFF that say what its samples are (TIFF 6.0, sections 4 to 8), read before any decoder is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from atrous.errors import InputError

_TYPES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
"""Size in bytes of the types of integers."""
_MOST_VALUES, _MOST_PAGES = 4096, 64
_SHORTEST = 16
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_MOST_OFFSETS = 2**16

BIG_ENDIAN_BIGTIFF = b"MM\0+"
"""The first bytes of a kind of file whose tags Pillow can't read."""

PHOTOMETRICS = {
    0: "WhiteIsZero",
    1: "BlackIsZero",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    32803: "raw data of a camera's color filter",
    34892: "linear raw data of a camera",
}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
CAMERA_RAW = (32803, 34892)
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
ASSOCIATED, UNASSOCIATED = 1, 2
UNCOMPRESSED, LZW, JPEG = 1, 5, 7
DEFLATE = (8, 32946)


@dataclass(frozen=True)
class TiffPage:
    """One image of a TIFF file, as its tags describe it.

    Args:
        place: its number in the file, and among the subordinate images (tag 330) of that page if it is one.
        height, width: in pixels, as stored.
        bits: of a sample, by band (tag 258).
        photometric: what the samples mean (tag 262).
        bands: samples per pixel (tag 277).
        planar: whether each band is stored for itself (tag 284).
        sample_format: 1 unsigned, 2 signed, 3 floating point, 4 undefined, by the first band (tag 339).
        extra: the meaning of the bands beyond the colours (tag 338): 0 not specified, 1 and 2 alpha.
        compression: tag 259.
        orientation: tag 274.
        reduced: whether it is a thumbnail or a transparency mask of another image (tags 254 and 255).
        subordinate: file offsets of the images of tag 330.
        big_endian: whether the file stores the highest byte of a number first.
        missing: tiles or strips that are not in the file: their offset (tags 324 and 273) is 0.
    """

    place: tuple[int, int | None]
    height: int
    width: int
    bits: tuple[int, ...] = (1,)
    photometric: int = BLACK_IS_ZERO
    bands: int = 1
    planar: bool = False
    sample_format: int = UNSIGNED
    extra: tuple[int, ...] = ()
    compression: int = UNCOMPRESSED
    orientation: int = 1
    reduced: bool = False
    subordinate: tuple[int, ...] = field(default=(), repr=False)
    big_endian: bool = False
    missing: int = 0

    @property
    def alpha(self) -> int:
        """The kind of alpha in the last band: 1 if colours are multiplied by it, 2 if not, 0 if there is none."""
        return self.extra[-1] if self.extra and self.extra[-1] in (ASSOCIATED, UNASSOCIATED) else 0

    @property
    def depth(self) -> int:
        """Bits of a sample; 0 if bands differ."""
        return self.bits[0] if len(set(self.bits)) == 1 else 0

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def __str__(self) -> str:
        numbers = {SIGNED: " signed", FLOAT: " floating-point"}.get(self.sample_format, "")
        depth = "/".join(map(str, dict.fromkeys(self.bits)))
        meaning = PHOTOMETRICS.get(self.photometric, f"photometric {self.photometric}")
        bands = f"{self.bands} band{'s' if self.bands > 1 else ''}"
        planes = ", in planes" if self.planar else ""
        return f"{bands} of {depth}{numbers} bits ({meaning}{', the last one alpha' if self.alpha else ''}{planes})"


def read_pages(data: bytes) -> list[TiffPage]:
    """The pages of a TIFF, each followed by its subordinate images; empty if the tags of the first can't be read."""
    if len(data) < _SHORTEST or data[:2] not in (b"II", b"MM"):
        return []
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big = int.from_bytes(data[2:4], order) == 43
    read = partial(_read_page, data, order, big)
    at = int.from_bytes(data[8:16] if big else data[4:8], order)
    pages: list[TiffPage] = []
    seen: set[int] = set()
    while at and at not in seen and len(pages) < _MOST_PAGES:
        seen.add(at)
        page, at = read(at, (len(seen) - 1, None))
        if page is None:
            break
        pages.append(page)
        found = (read(offset, (page.place[0], number))[0] for number, offset in enumerate(page.subordinate))
        pages += [subordinate for subordinate in found if subordinate]
    return pages


def main_page(pages: list[TiffPage]) -> TiffPage:
    """The image that a file is about: the first page, unless that is the thumbnail of a larger one."""
    first = pages[0]
    own = [page for page in pages if page.place[0] == 0]
    larger = [page for page in (pages if first.reduced else own) if page.pixels > first.pixels]
    return max(larger, key=lambda page: (not page.reduced, page.pixels), default=first)


def refuse_missing(page: TiffPage) -> None:
    """Refuse a page that lacks tiles, which decoders take for zeros or read from anywhere.

    Raises:
        InputError: tiles are missing.
    """
    if page.missing:
        raise InputError(
            f"a TIFF that lacks {page.missing:,} of its tiles (their offset is 0), expected all of them; copy it "
            "again, or fill them with zeros: gdal_translate IN.tif OUT.tif"
        )


def page_of(
    tags: Mapping[int, tuple[int, ...]], place: tuple[int, int | None] = (0, None), *, big_endian: bool
) -> TiffPage | None:
    """A page by its tags; None if these do not contain its size."""
    if not (tags.get(256) and tags.get(257)):
        return None

    def first(tag: int, default: int) -> int:
        return (tags.get(tag) or (default,))[0]

    return TiffPage(
        place,
        height=first(257, 0),
        width=first(256, 0),
        bits=tags.get(258) or (1,),
        photometric=first(262, BLACK_IS_ZERO),
        bands=first(277, 1),
        planar=first(284, 1) == 2 and first(277, 1) > 1,
        sample_format=first(339, UNSIGNED),
        extra=tags.get(338, ()),
        compression=first(259, UNCOMPRESSED),
        orientation=first(274, 1),
        reduced=bool(first(254, 0) & 0b101) or first(255, 1) == 2,
        subordinate=tags.get(330, ()),
        big_endian=big_endian,
        missing=(tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS) or ()).count(0),
    )


def _read_page(
    data: bytes, order: Literal["little", "big"], big: bool, at: int, place: tuple[int, int | None]
) -> tuple[TiffPage | None, int]:
    """A page, and the file offset of the next."""
    size = 20 if big else 12
    start = at + (8 if big else 2)
    after = start + size * int.from_bytes(data[at:start], order)
    following = int.from_bytes(data[after : after + (8 if big else 4)], order)
    return page_of(dict(_read_tags(data, order, big, at)), place, big_endian=order == "big"), following


def _read_tags(
    data: bytes, order: Literal["little", "big"], big: bool, at: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The tags of a page whose values are integers."""

    def number(place: int, size: int) -> int:
        return int.from_bytes(data[place : place + size], order)

    start, size, wide = (at + 8, 20, 8) if big else (at + 2, 12, 4)
    for entry in range(start, min(start + size * number(at, start - at), len(data) - size + 1), size):
        kind, count = number(entry + 2, 2), number(entry + 4, wide)
        offsets = number(entry, 2) in (_STRIP_OFFSETS, _TILE_OFFSETS)
        if kind not in _TYPES or not 0 < count <= (_MOST_OFFSETS if offsets else _MOST_VALUES):
            continue
        bytes_each, values = _TYPES[kind], entry + 4 + wide
        if bytes_each * count > wide:
            values = number(values, wide)
        yield number(entry, 2), tuple(number(values + i * bytes_each, bytes_each) for i in range(count))
