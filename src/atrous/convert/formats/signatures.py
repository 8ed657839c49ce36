"""What a file is by its first bytes, where it is not what it was taken for."""

from __future__ import annotations

from collections.abc import Mapping

SIGNATURE_BYTES = 16
"""How many bytes tell it."""
_NOT_DOWNLOADED = {
    b"version http": "a pointer of git LFS: `git lfs pull` brings the file itself",
    b"<": "a web page, not what was to be downloaded",
}


def describe_signature(beginning: bytes, kinds: Mapping[bytes, str]) -> str | None:
    """What stands in a file's place after a download that went wrong, or one of the kinds by how they begin."""
    return next((kind for start, kind in {**_NOT_DOWNLOADED, **kinds}.items() if beginning.startswith(start)), None)


def is_safetensors(beginning: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a header in eight bytes, then the header, in JSON."""
    return beginning[4:9] == b"\0\0\0\0{"
