"""How a mask was compressed: a lossy codec changes labels along every edge, whatever the suffix of the file is."""

from __future__ import annotations

from PIL import Image

_FORMATS = {
    "JPEG": "JPEG",
    "MPO": "JPEG",
    "JPEG2000": "JPEG 2000",
    "AVIF": "AVIF",
    "HEIF": "HEIF",
    "JXL": "JPEG XL",
    "DDS": "a DDS texture",
    "FTEX": "an FTEX texture",
    "BLP": "a BLP texture",
}
"""Formats that are lossy, or whose files don't show whether they are (JPEG 2000, AVIF, HEIF)."""
_TIFF_COMPRESSIONS = {
    6: "JPEG",
    7: "JPEG",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34892: "JPEG",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Values of TIFF's tag 259, Compression."""
_COMPRESSION = 259


def lossy_codec(image: Image.Image, data: bytes) -> str:
    """The lossy codec of an opened image, such as ``JPEG in TIFF``; empty if its pixels are exact.

    Args:
        image: opened by Pillow.
        data: the file, or its beginning.
    """
    if image.format == "TIFF":
        codec = _TIFF_COMPRESSIONS.get(image.tag_v2.get(_COMPRESSION, 1), "")  # type: ignore[attr-defined]
        return f"{codec} in TIFF" if codec else ""
    if image.format == "WEBP":
        return "" if _is_lossless_webp(data) else "lossy WebP"
    return _FORMATS.get(image.format or "", "")


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the first image in the chunks of a WebP file is lossless (VP8L), not lossy (VP8)."""
    at = 12
    while at + 8 <= len(data):
        chunk, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if chunk in (b"VP8L", b"VP8 "):
            return chunk == b"VP8L"
        at += 8 + (16 if chunk == b"ANMF" else size + size % 2)  # the frames of an animation contain chunks
    return False


def grey_levels(image: Image.Image) -> int:
    """The largest value that the pixels of an opened image can have in its file, before they are decoded.

    Pillow stretches grey values of 1, 2 and 4 bits to 255 when it decodes them, and those of a PGM file by its maximum.
    """
    if image.mode == "1":
        return 1
    tiles = getattr(image, "tile", ())
    if image.mode != "L" or not tiles:
        return 255
    arguments = tiles[0].args
    if image.format == "PPM" and isinstance(arguments, tuple):
        return int(arguments[1]) if tiles[0].codec_name.startswith("ppm") else 255
    raw_mode = arguments[0] if isinstance(arguments, tuple) else str(arguments)
    bits = str(raw_mode).partition(";")[2][:1]
    return 2 ** int(bits) - 1 if bits in ("1", "2", "4") else 255
