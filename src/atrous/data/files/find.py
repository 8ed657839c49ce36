"""Finding image files in folders and by patterns."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atrous.data.files.images import ImageError

_COMMON = "jpg jpeg jpe jfif mpo png apng webp tif tiff bmp dib gif avif heic heif"
_RARE = "ppm pgm pbm pnm jp2 j2k tga"
SUFFIXES = frozenset(f".{ending}" for ending in f"{_COMMON} {_RARE}".split())
"""The suffixes of the files that count as images inside a folder."""
WITH_ARRAYS = SUFFIXES | {".npy"}
"""Those of a dataset's folders, where arrays are images and masks too."""


@dataclass(frozen=True)
class FoundImage:
    """An image file, and its path relative to what was asked for.

    Args:
        path: of the file.
        relative: below the folder, or below the fixed part of the pattern; only the name if the file itself was given.
        explicit: whether the file itself was given, and not found in a folder or by a pattern.
        url: of an image in an object store, whose path is then its name alone.
    """

    path: Path
    relative: Path
    explicit: bool
    url: str = ""

    @property
    def place(self) -> Path | str:
        """Where it is, for messages."""
        return self.url or self.path


def find_images(inputs: Sequence[str | Path], suffixes: frozenset[str] = SUFFIXES) -> list[FoundImage]:
    """List the images in files, folders and patterns, each name once, in a fixed order.

    Links count by their own names: two links to one file are two images, as in datasets that are built of links.

    Folders, and folders that a pattern such as ``"photos/*.jpg"`` or ``"photos/**"`` matches, are searched recursively
    for files with one of the suffixes; hidden files are skipped. A file given by its name is always listed, whatever
    its suffix and even if it is missing: reading it will raise the error.

    Raises:
        ImageError: a folder or a pattern without images, or nothing was given.
    """
    if not inputs:
        raise ImageError("no input: name at least one image, folder or pattern such as 'photos/*.jpg'")
    found: dict[str, FoundImage] = {}
    for given in inputs:
        for image in _find(given, suffixes):
            found.setdefault(os.path.abspath(image.path), image)  # noqa: PTH100 - resolve follows links
    return list(found.values())


def _find(given: str | Path, suffixes: frozenset[str]) -> list[FoundImage]:
    path = Path(given)
    if path.is_dir():
        images = [FoundImage(file, file.relative_to(path), explicit=False) for file in _walk(path, suffixes)]
    elif path.exists() or not glob.has_magic(str(given)):
        return [FoundImage(path, Path(path.name), explicit=True)]
    else:
        fixed = Path(*_fixed_parts(path))
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute too
        files = [
            f for m in matches for f in (_walk(m, suffixes) if m.is_dir() else [m]) if f.suffix.lower() in suffixes
        ]
        images = [FoundImage(file, _below(fixed, file), explicit=False) for file in files]
    if not images:
        endings = " ".join(sorted(suffixes))
        what = "in this folder or below it" if path.is_dir() else "matches this pattern"
        raise ImageError(f"{given}: no image {what}; looked for files with the suffixes {endings}")
    return images


def _below(folder: Path, file: Path) -> Path:
    relative = file.relative_to(folder)
    return Path(file.name) if ".." in relative.parts else relative


def _fixed_parts(pattern: Path) -> Iterator[str]:
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _walk(folder: Path, suffixes: frozenset[str], above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The images below a folder; links to folders are followed, except to a folder that they are in."""
    here = os.path.realpath(folder)
    if here in above:
        return
    entries = sorted((entry for entry in _entries(folder) if not entry.name.startswith(".")), key=lambda e: e.name)
    folders = {entry.name: None for entry in entries if _is_dir(entry)}
    for entry in entries:
        if entry.name not in folders and Path(entry.name).suffix.lower() in suffixes:
            yield folder / entry.name
    for name in folders:
        yield from _walk(folder / name, suffixes, (*above, here))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    return is_dir(Path(entry.path)) if entry.is_symlink() else entry.is_dir()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not readable
        return []


def is_file(path: Path) -> bool:
    """Whether there is such a file; also False for a name that is too long or contains a null character."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for such names


def is_dir(path: Path) -> bool:
    """Whether there is such a folder, as :func:`is_file`."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def as_written(path: Path) -> Path:
    """The file of a name whose accents may be written otherwise: macOS stores ``é`` as ``e`` and an accent.

    Returns:
        The path of the file in the same folder whose name is the same to a reader; the path itself if there is none.
    """
    if path.name.isascii() or is_file(path):
        return path
    meant = composed(path.name)
    names = (entry.name for entry in _entries(path.parent))
    return next((path.with_name(name) for name in names if composed(name) == meant), path)


def composed(name: str) -> str:
    """A name with each letter and its accents in one character (Unicode's NFC), so that names can be compared."""
    return unicodedata.normalize("NFC", name)


def has_images(folder: Path) -> bool:
    """Whether a folder, or one in it, has a file that is called like an image."""
    return any(file.suffix.lower() in SUFFIXES and not file.name.startswith(".") for file in folder.rglob("*"))
