"""Images in object stores (``s3://``, ``gs://``, ``memory://``, ...), through fsspec."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from atrous.data.files.find import SUFFIXES, FoundImage
from atrous.data.files.images import ImageError
from atrous.errors import InputError


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL."""
    return "://" in str(place)


def find_urls(inputs: Sequence[str]) -> list[FoundImage]:
    """The images at some URLs of files, folders or patterns, in order.

    Raises:
        ImageError: there is none, or the store can't be read.
    """
    found: dict[str, FoundImage] = {}
    for given in inputs:
        fs, path = _open_store(given)
        try:
            if glob.has_magic(path):
                fixed = PurePosixPath(*_before(PurePosixPath(path)))
                below = {file: PurePosixPath(file).relative_to(fixed) for file in fs.glob(path)}
            elif fs.isfile(path):
                below = {path: PurePosixPath(PurePosixPath(path).name)}
            else:
                below = {file: PurePosixPath(file).relative_to(path) for file in fs.find(path)}
        except Exception as error:  # each store has errors of its own
            raise ImageError(f"{given}: the store can't be read ({_reason(error)})") from error
        images = {file: name for file, name in below.items() if name.suffix.lower() in SUFFIXES}
        if not images:
            raise ImageError(f"{given}: no image there; looked for names with the suffixes of images")
        for file, name in sorted(images.items()):
            url = fs.unstrip_protocol(file)
            found.setdefault(url, FoundImage(Path(name), Path(name), explicit=False, url=url))
    return list(found.values())


def names_below(url: str) -> set[str]:
    """The names of all files below a folder, relative to it; none if it does not exist."""
    fs, path = _open_store(url)
    return {PurePosixPath(file).relative_to(path).as_posix() for file in fs.find(path)} if fs.exists(path) else set()


def fetch(url: str, path: Path) -> Path:
    """Copy a file from a store.

    Raises:
        OSError: it can't be read; the message says why.
    """
    fs, there = _open_store(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fs.get_file(there, str(path))
    except Exception as error:  # each store has errors of its own
        raise OSError(
            f"{url} can't be read from its store ({_reason(error)}); check its name and your access"
        ) from error
    return path


def put(path: Path, url: str) -> None:
    """Copy a file into a store, where it appears whole.

    Raises:
        OSError: it can't be written; the message says why.
    """
    fs, there = _open_store(url)
    beside = f"{there}.part"
    try:
        fs.makedirs(str(PurePosixPath(there).parent), exist_ok=True)
        fs.put_file(str(path), beside)
        fs.mv(beside, there)
    except Exception as error:  # each store has errors of its own
        raise OSError(f"{url} can't be written to its store ({_reason(error)}); check your access") from error


def _open_store(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{url}: stores need fsspec: pip install 'atrous[ray]'") from error
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: this kind of store can't be opened ({error})") from error
    return fs, str(path).rstrip("/")


def _before(pattern: PurePosixPath) -> list[str]:
    """The folders before the first wildcard."""
    parts = list(pattern.parts[:-1])
    return parts[: next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
