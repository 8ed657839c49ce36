"""Writing files and folders whole or not at all: whatever fails or is killed, what was there before stays."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atrous.errors import AtrousError

JSON_DEPTH = 3
"""Levels of a JSON file that have a line for each value, so that a change is easy to read."""


def dumps(value: Any, depth: int = JSON_DEPTH) -> str:
    """JSON with a line for each value in the outer ``depth`` levels."""
    if depth and isinstance(value, Mapping) and value:
        items = [f"{json.dumps(str(key), ensure_ascii=False)}: {dumps(item, depth - 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + "\n}"
    if depth and isinstance(value, list | tuple) and value:
        return "[\n" + ",\n".join(dumps(item, depth - 1) for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def refuse_newer(found: object, known: int, place: object, error: type[AtrousError]) -> None:
    """Raise an error if a file's version of its format is newer than the one known here.

    Args:
        found: what the file says under ``format``; anything but a whole number is a form from before versions.
        known: the newest version that can be read.
        place: of the file, for the message.
        error: to raise.
    """
    if isinstance(found, int) and found > known:
        raise error(f"{place} has format {found}, this atrous reads up to {known}: upgrade atrous")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, over an existing one; missing parent folders are created.

    Raises:
        OSError: the file cannot be written; nothing has changed.
    """
    with replacing_file(path) as beside:
        beside.write_bytes(data)


@contextmanager
def replacing_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """Write a file whole or not at all, by a program that takes a path: yields one beside it, whose file takes its
    place when the block ends; if the block raises, nothing has changed.

    Args:
        path: of the file; missing parent folders are created.
        suffix: that the program expects, such as ``.gpkg``.

    Raises:
        OSError: the file cannot be put in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{platform.node()}-{os.getpid()}-{uuid.uuid4().hex}.tmp{suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine that were killed left of :func:`replacing_file` in a folder."""
    name = re.compile(rf"\.{re.escape(platform.node())}-(\d+)-[0-9a-f]{{32}}\.tmp(\.\w+)?")
    for file in folder.glob(".*.tmp*"):
        if (match := name.fullmatch(file.name)) and not _is_running(int(match[1])):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 ends it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Write a folder whole or not at all: yields a new one beside it, which takes its place when the block ends.

    The block fills the new folder; if it raises, nothing has changed. At whatever moment the process is killed, the
    old folder or the new one is whole, and :func:`find_folder` finds it. A symbolic link stays one: the folder that it
    points to is replaced.

    Raises:
        OSError: the parent folder is missing, or cannot be written to.
    """
    folder = Path(os.path.realpath(folder))
    standing = find_folder(folder)
    if standing and standing != folder:
        standing.replace(folder)
    new, old = _beside(folder)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # on a full disk its room is needed
        raise
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_folder(folder: Path) -> Path | None:
    """Where the contents of a folder are that :func:`replacing_folder` wrote: under its own name, or, if a crash came
    between its two renames, under the new or the old one's; None if there is none.
    """
    if folder.exists():
        return folder
    new, old = _beside(Path(os.path.realpath(folder)))
    if not old.exists():
        return None
    return new if new.exists() else old  # between the two renames the new one is whole


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def sync_folder(folder: Path) -> None:
    """Wait until a folder and the files in it are on the disk, so that they survive a power cut."""
    for path in (*folder.iterdir(), folder):
        if os.name == "nt" and path.is_dir():
            continue  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
