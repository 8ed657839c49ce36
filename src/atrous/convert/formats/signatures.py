"""Recognising a file by its first bytes, when it is not what was expected."""

from __future__ import annotations

from collections.abc import Mapping

SIGNATURE_BYTES = 16
"""Number of bytes that are needed."""
_NOT_DOWNLOADED = {
    b"version http": "a git LFS pointer: `git lfs pull` downloads the file itself",
    b"<": "a web page instead of the download",
}


def describe_signature(beginning: bytes, kinds: Mapping[bytes, str]) -> str | None:
    """What a file is: one of the kinds by first bytes, or the result of a failed download; None if unknown."""
    return next((kind for start, kind in {**_NOT_DOWNLOADED, **kinds}.items() if beginning.startswith(start)), None)


def is_safetensors(beginning: bytes) -> bool:
    """Whether a file begins like safetensors: the length of the header in eight bytes, then the header as JSON."""
    return beginning[4:9] == b"\0\0\0\0{"
