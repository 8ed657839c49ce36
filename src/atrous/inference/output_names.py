"""Choosing the names of each image's results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from atrous.data.files.find import FoundImage


def unique_stems(found: Sequence[FoundImage]) -> tuple[list[Path], list[str]]:
    """Choose the path below OUT, without ending, of each image's results; all paths differ.

    Returns:
        The paths in the order of ``found``, and notes on those that are not simply the image's own.
    """
    roots = [_root(image) for image in found]
    depth = dict.fromkeys(roots, 0)
    while True:  # each pass puts one more folder in front of the images of clashing roots
        names = [_last(root, depth[root]) / image.relative for root, image in zip(roots, found, strict=True)]
        count = Counter(names)
        clashing = {root for root, name in zip(roots, names, strict=True) if count[name] > 1}
        growing = {root for root in clashing if depth[root] < len(root.parts)}
        if not growing:
            break
        for root in growing:
            depth[root] += 1
    stems = [name.with_suffix("") for name in names]
    while clashes := {stem for stem, count in Counter(stems).items() if count > 1}:
        stems = [name if stem in clashes else stem for stem, name in zip(stems, names, strict=True)]
    return stems, _renamings(roots, depth, names, stems)


def _root(image: FoundImage) -> Path:
    """The folder that ``image.relative`` starts from, as a path relative to the file system's root."""
    folder = Path(*image.path.parts[: -len(image.relative.parts)])
    return Path(*Path(os.path.realpath(folder)).parts[1:])


def _last(root: Path, count: int) -> Path:
    return Path(*root.parts[len(root.parts) - count :])


def _renamings(roots: list[Path], depth: dict[Path, int], names: list[Path], stems: list[Path]) -> list[str]:
    notes = []
    if moved := sorted({f"{_last(root, depth[root])}/" for root in roots if depth[root]}):
        notes.append(f"images from different folders have the same names; results are kept apart in {_some(moved)}")
    if kept := [f"{stem}.png" for name, stem in zip(names, stems, strict=True) if stem == name and name.suffix]:
        notes.append(f"images that differ only in their ending keep it in the name of the mask: {_some(kept)}")
    return notes


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
