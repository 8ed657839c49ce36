"""Names in lists and folders: reading them, and suggesting the one that was probably meant."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from atrous.data.files.find import is_file
from atrous.data.sources.labels_toml import read_text
from atrous.errors import DatasetError

VALIDATION_SHARE = 0.2
"""Share of the images that ``val`` gets where no splits are declared."""
_USUAL = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
"""Other names of the usual splits, in lower case."""


def usual_split(name: str) -> str:
    """The name of a split as it is usual: ``val`` for ``valid`` and ``Validation``, ``train`` for ``Train``."""
    usual = _USUAL.get(name.lower(), name.lower())
    return usual if usual in ("train", "val", "test") else name


def drawn_for_validation(name: str) -> bool:
    """Whether an image is in ``val`` where no splits are declared: by a hash of its name, so that it stays there."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < VALIDATION_SHARE * 2**32


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None if none is similar."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, 1, 0.6)
    return by_lower_case[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The same as the end of a message; empty if none is similar."""
    near = closest(name, known)
    return f" (did you mean '{near}'?)" if near else ""


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones; empty if it does not exist."""
    return sorted(path.name for path in visible(folder.iterdir()) if path.is_dir()) if folder.is_dir() else []


def visible(files: Iterable[Path]) -> list[Path]:
    """Files and folders in order, without hidden ones, such as ``._x.jpg`` that macOS puts beside ``x.jpg``."""
    return sorted(file for file in files if not file.name.startswith("."))


def only_json(root: Path, kind: str, form: str) -> Path:
    """The one JSON file of an annotation tool: the path itself, or what the folder holds.

    Raises:
        DatasetError: none, or several; the message says what is expected, and how to name it.
    """
    files = [root] if root.is_file() else visible(root.glob("*.json"))
    if len(files) != 1:
        raise DatasetError(f"{root} has {len(files)} JSON files, expected one, {form}; name it: {kind}:FILE.json")
    return files[0]


def lists_in(folder: Path) -> list[Path]:
    """The text files in a folder that may be lists of splits."""
    return visible(folder.glob("*.txt"))


def read_lines(file: Path, root: Path) -> list[str]:
    """Read the non-empty lines of the list of a split; backslashes in them are read as slashes.

    Args:
        file: the list, named after the split.
        root: the dataset, for messages.

    Raises:
        DatasetError: the file does not exist, or is not UTF-8 text.
    """
    if not is_file(file):
        there = [path.stem for path in lists_in(file.parent)]
        raise DatasetError(
            f"{root} has no split '{file.stem}'{did_you_mean(file.stem, there)} (looked for {file}); "
            f"available splits: {', '.join(there) or 'none'}"
        )
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error
    return [line.strip().replace("\\", "/") for line in lines if line.strip()]


def require_split(folder: Path, available: list[str]) -> None:
    """Require the folder of a split.

    Raises:
        DatasetError: it does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder.parent} has no split '{folder.name}'{did_you_mean(folder.name, available)}; available splits: "
            f"{', '.join(available) or 'none'}"
        )
