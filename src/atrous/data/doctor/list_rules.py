"""What the lists of a dataset and the names of its files tell: what is missing, spare, or shared by mistake."""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from atrous.data.files.masks import MaskRef
from atrous.data.findings import SHOWN, Finding, Item, Severity, number
from atrous.data.sources.base import DatasetSource, Listed, list_pairs
from atrous.data.sources.names import closest
from atrous.errors import DatasetError

Lists = Mapping[str, Sequence[Listed]]
"""The pairs of each split."""


def absent_files(source: DatasetSource, lists: Lists) -> list[Finding]:
    """The errors that the names of files tell, without one being opened."""
    pairs = {pair: split for split, listed in lists.items() for pair in listed}
    there = {pair.image: pair.image.is_file() for pair in pairs}
    without_image = {pair: split for pair, split in pairs.items() if not there[pair.image]}
    without_mask = [pair for pair in pairs if there[pair.image] and not pair.mask.exists()]
    findings = [
        _not_there(source, without_image, {pair.name for pair in pairs if there[pair.image]}),
        *_missing_masks(source, without_mask, len(pairs)),
        _shared_masks(source, pairs),
        _missing_extras(source, pairs),
    ]
    return [finding for finding in findings if finding]


def how_to_fix(source: DatasetSource) -> str:
    """The command that writes a mended copy."""
    return f"`atrous data check {shlex.quote(source.spec)} --fix NEW_FOLDER`"


def _not_there(source: DatasetSource, listed: Mapping[Listed, str], names: set[str]) -> Finding | None:
    if not listed:
        return None
    items: list[Item] = []
    for pair, split in listed.items():
        near = closest(pair.name, names) if len(items) < SHOWN else None  # comparing takes a while
        items.append(Item(str(pair.image), f"listed by {split}" + (f"; did you mean {near}?" if near else "")))
    files = sorted({str(source.list_file(part)) for split in listed.values() for part in split.split("+")})
    return Finding(
        "not-there",
        "error",
        f"{' and '.join(files)} {'list' if len(files) > 1 else 'lists'} "
        f"{number(len(items), 'image that is', 'images that are')} not there",
        "an image for each name",
        f"add the images, or take the names out of the list; {how_to_fix(source)} does so",
        tuple(items),
    )


def _missing_masks(source: DatasetSource, pairs: Sequence[Listed], total: int) -> list[Finding]:
    if not pairs:
        return []
    names = {folder: _names_in(folder) for folder in {pair.mask.path.parent for pair in pairs}}
    near = {pair: _beginning_with(pair.mask.path.stem, names[pair.mask.path.parent]) for pair in pairs}
    items = []
    for pair in pairs:
        hint = f" (there is {', '.join(near[pair][:3])})" if near[pair] else ""
        items.append(Item(str(pair.image), f"needs {pair.mask}{hint}"))
    return [
        Finding(
            "missing-mask",
            "error",
            f"{len(items)} of {number(total, 'image')} {'has' if len(items) == 1 else 'have'} no mask",
            f"{pairs[0].mask.expected} of the image's name for each",
            _renaming(near) or f"draw them, or leave these images out in a copy: {how_to_fix(source)}",
            tuple(items),
        )
    ]


def _missing_extras(source: DatasetSource, pairs: Iterable[Listed]) -> Finding | None:
    items = []
    for folder, named in source.extras.folders().items():
        files = {pair: folder / (pair.mask.path if named == "mask" else pair.image).name for pair in pairs}
        items += [Item(str(pair.image), f"needs {file}") for pair, file in files.items() if not file.is_file()]
    if not items:
        return None
    return Finding(
        "missing-file",
        "error",
        f"{number(len(items), 'image lacks', 'images lack')} a file that {source.kind} needs beside it and its mask",
        "a file of the same name for each",
        "add them, or take the images out of the list",
        tuple(items),
    )


def _names_in(folder: Path) -> list[tuple[str, str]]:
    """The files of a folder in small letters, in order, each with its true name."""
    return sorted((file.name.lower(), file.name) for file in folder.iterdir()) if folder.is_dir() else []


def _beginning_with(stem: str, names: Sequence[tuple[str, str]]) -> list[str]:
    first = bisect_left(names, (stem.lower(), ""))
    return [name for _, name in takewhile(lambda named: named[0].startswith(stem.lower()), names[first:])]


def _renaming(near: Mapping[Listed, Sequence[str]]) -> str | None:
    """The command that gives masks their images' names, where all that are missing are there with one addition."""
    folders = {pair.mask.path.parent for pair in near}
    endings = {names[0].removeprefix(pair.mask.path.stem) if len(names) == 1 else "" for pair, names in near.items()}
    folder, ending = folders.pop(), endings.pop()
    if folders or endings or not ending.endswith(".png") or ending[0].isalnum() or ending == ".png":
        return None
    return f'for f in {shlex.quote(str(folder))}/*{ending}; do mv -n "$f" "${{f%{ending}}}.png"; done'


def _shared_masks(source: DatasetSource, pairs: Mapping[Listed, str]) -> Finding | None:
    images: dict[MaskRef, list[Path]] = {}
    for pair in pairs:
        if pair.image not in images.setdefault(pair.mask, []):
            images[pair.mask].append(pair.image)
    shared = {mask: sharing for mask, sharing in images.items() if len(sharing) > 1}
    if not shared:
        return None
    return Finding(
        "shared-mask",
        "error",
        f"{number(len(shared), 'mask belongs', 'masks belong')} to more than one image",
        "names that differ in more than the ending",
        f"rename or remove one image of each, or leave these out in a copy: {how_to_fix(source)}",
        tuple(Item(str(image), f"would share {mask}") for mask, sharing in shared.items() for image in sharing),
    )


USUAL_SPLITS = ("train", "val", "test")


def read_lists(source: DatasetSource, splits: Sequence[str] = ()) -> tuple[dict[str, list[Listed]], list[Finding]]:
    """The pairs of each split, and what is wrong with those that can't be read.

    Args:
        source: where the files lie.
        splits: what to list; ``train``, ``val``, and ``test`` if it is there, when left out (``trainval`` and ``test``
            of a dataset without ``train``).
    """
    lists: dict[str, list[Listed]] = {}
    findings = []
    there = source.splits()
    whole = "trainval" in there and "train" not in there
    usual = ("trainval", "test") if whole else [name for name in USUAL_SPLITS if name != "test" or name in there]
    for split in splits or usual:
        try:
            lists[split] = list_pairs(source, split)
        except DatasetError as error:
            needed = bool(splits) or split == "train"
            findings.append(_no_split(source, split, str(error), "error" if needed else "warning"))
            continue
        if not lists[split]:
            findings.append(_no_split(source, split, f"split '{split}' of {source.root} has no images", "error"))
    return lists, findings


def _no_split(source: DatasetSource, split: str, found: str, severity: Severity) -> Finding:
    without = "; to train without validation: --set data.val_split=none" if split == "val" else ""
    file = source.list_file(split)
    if file.suffix == ".txt":
        mend = f"correct the name, or write {file}, one name a line"
    elif file.exists():
        mend = f"name another split, or correct what is in {file}"
    else:
        mend = f"correct the name, or add {file}"
    return Finding(
        "no-split",
        severity,
        found,
        "a split of this name, with images",
        mend + without,
        (Item(str(file)),),
    )


def unused_files(source: DatasetSource) -> list[Finding]:
    """Masks and images that nobody uses."""
    findings = []
    if masks := source.unused_masks():
        findings.append(
            Finding(
                "extra-mask",
                "warning",
                f"{number(len(masks), 'mask belongs', 'masks belong')} to no image",
                "an image of the same name for each",
                f"add the images, correct the names, or leave these masks out in a copy: {how_to_fix(source)}",
                tuple(Item(str(mask)) for mask in masks),
            )
        )
    if images := source.unlisted_images():
        findings.append(
            Finding(
                "unlisted-image",
                "note",
                f"{number(len(images), 'image is', 'images are')} in no split",
                "each image in one split, unless it stays out on purpose",
                "nothing, or add the names to a list",
                tuple(Item(str(image)) for image in images),
            )
        )
    return findings
