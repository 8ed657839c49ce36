"""The checksums of a PNG, which Pillow does not verify for pixels: one flipped bit would be other labels."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from atrous.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
"""Chunks that say nothing about pixels; some programs write them with wrong checksums."""


def check_png(data: bytes) -> None:
    """Verify the checksums (CRC-32) of a PNG file.

    Raises:
        InputError: one is wrong, or a chunk is cut off.
    """
    for kind, content, checksum in _chunks(memoryview(data)):
        if kind not in _TEXT and (len(checksum) < 4 or crc32(content) != int.from_bytes(checksum)):
            wrong = "has a wrong checksum" if len(checksum) == 4 else "is cut off"
            raise InputError(
                f"a damaged image (its {kind.decode('latin-1')!r} chunk {wrong}; the file has {len(data):,} bytes), "
                "expected a complete one; copy or download it again"
            )


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Type, type and data, and checksum of each chunk, up to the last."""
    at, kind = len(SIGNATURE), b""
    while at + 8 <= len(data) and kind != b"IEND":
        end = at + 8 + int.from_bytes(data[at : at + 4])
        kind = bytes(data[at + 4 : at + 8])
        yield kind, data[at + 4 : end], data[end : end + 4]
        at = end + 4
