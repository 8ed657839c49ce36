"""Images that lie inside other files: each is written once into a cache folder, where it is a file like any other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from atrous.errors import DatasetError
from atrous.files import write_atomically


def extracted(file: Path, name: str, read: Callable[[], bytes]) -> Path:
    """The path of an image inside a file, written when it is first asked for, and again when the file has changed.

    Args:
        file: that contains it.
        name: of the image.
        read: gives its bytes.

    Raises:
        DatasetError: they can't be read.
    """
    status = file.stat()
    key = f"{file.resolve()}\n{status.st_mtime_ns}\n{status.st_size}\n{name}"
    place = cache_folder() / hashlib.sha256(key.encode()).hexdigest()[:20] / name
    if not place.is_file():
        try:
            data = read()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{file}: the image inside it can't be read ({error}); export it again") from error
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, data)
    return place


def cache_folder() -> Path:
    """Where images from other files are kept: ``atrous/embedded`` in ``XDG_CACHE_HOME``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atrous" / "embedded"
