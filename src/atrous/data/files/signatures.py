"""What a file that is not an image is, by its first bytes."""

from __future__ import annotations

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


def describe(data: bytes) -> str:
    """Describe a file that no decoder recognises."""
    start = data.lstrip()[:64].lower() if data[:1].isspace() else data[:64]
    for offset, signature, description in _SIGNATURES:
        if start[offset:].lower().startswith(signature.lower()):
            return description
    if start.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*", b"MM\0*", b"BM")):
        return f"an image whose header is damaged ({len(data):,} bytes); copy or download it again"
    return f"not an image: it begins with {start[:12]!r}"
