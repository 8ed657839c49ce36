"""Findings from lists and file names: what is missing, unused, or shared by mistake. No file is opened."""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from atrous.data.files.find import is_file
from atrous.data.files.masks import MaskRef
from atrous.data.finding_kinds import FindingKind
from atrous.data.finding_rules import RULES
from atrous.data.findings import SHOWN, Finding, Item, make_finding, number
from atrous.data.sources.base import DatasetSource, Described, Listed, list_pairs
from atrous.data.sources.names import closest
from atrous.errors import DatasetError

Lists = Mapping[str, Sequence[Listed]]
"""The pairs of each split."""
USUAL_SPLITS = ("train", "val", "test")


def repair_command(data: Described) -> str:
    """The command that writes a repaired copy of a dataset; empty if there can be none."""
    return f"`atrous data check {shlex.quote(data.spec)} --fix NEW_FOLDER`" if data.repairable else ""


def absent_files(source: DatasetSource, lists: Lists) -> list[Finding]:
    """Errors about files that do not exist, or belong to several images, and objects without an outline."""
    pairs = {pair: split for split, listed in lists.items() for pair in listed}
    there = {pair.image: is_file(pair.image) for pair in pairs}
    without_image = {pair: split for pair, split in pairs.items() if not there[pair.image]}
    without_mask = [pair for pair in pairs if there[pair.image] and not pair.mask.exists()]
    findings = [
        _missing_images(source, without_image, {pair.name for pair in pairs if there[pair.image]}),
        _missing_masks(source, without_mask, len(pairs)),
        _shared_masks(source, pairs),
        _missing_extras(source, pairs),
        _boxes(pairs),
    ]
    return [finding for finding in findings if finding]


def _missing_images(source: DatasetSource, listed: Mapping[Listed, str], names: set[str]) -> Finding | None:
    if not listed:
        return None
    items: list[Item] = []
    for pair, split in listed.items():
        near = closest(pair.name, names) if len(items) < SHOWN else None  # comparing takes a while
        items.append(Item(str(pair.image), f"listed by {split}" + (f"; did you mean {near}?" if near else "")))
    files = sorted({str(source.list_file(part)) for split in listed.values() for part in split.split("+")})
    return make_finding(FindingKind.NOT_THERE, items, command=repair_command(source), lists=" and ".join(files))


def _missing_masks(source: DatasetSource, pairs: Sequence[Listed], total: int) -> Finding | None:
    if not pairs:
        return None
    near = _near(pairs)
    items = []
    for pair in pairs:
        hint = f" (there is {', '.join(near[pair][:3])})" if near[pair] else ""
        items.append(Item(str(pair.image), f"needs {pair.mask}{hint}"))
    return make_finding(
        FindingKind.MISSING_MASK,
        items,
        fix=_renaming(near, repair_command(source)),
        command=repair_command(source),
        total=number(total, "image"),
        mask=pairs[0].mask.expected,
    )


def _boxes(pairs: Iterable[Listed]) -> Finding | None:
    items = [Item(str(pair.mask), thing) for pair in pairs for thing in pair.mask.boxes()]
    return make_finding(FindingKind.BOX_ONLY, items) if items else None


def _missing_extras(source: DatasetSource, pairs: Iterable[Listed]) -> Finding | None:
    items = []
    for folder, named_after in source.extras.folders().items():
        for pair in pairs:
            file = folder / (pair.mask.path if named_after == "mask" else pair.image).name
            if not is_file(file):
                items.append(Item(str(pair.image), f"needs {file}"))
    return make_finding(FindingKind.MISSING_FILE, items, source=source.kind) if items else None


def _names_in(folder: Path) -> list[tuple[str, str]]:
    """The files of a folder in lower case, in order, each with its true name."""
    return sorted((file.name.lower(), file.name) for file in folder.iterdir()) if folder.is_dir() else []


def _beginning_with(stem: str, names: Sequence[tuple[str, str]]) -> list[str]:
    first = bisect_left(names, (stem.lower(), ""))
    return [name for _, name in takewhile(lambda named: named[0].startswith(stem.lower()), names[first:])]


def masks_by_other_names(pairs: Sequence[Listed]) -> dict[Listed, Path]:
    """The masks of images without one, if all exist with the same addition to their names; else empty."""
    near = _near(pairs)
    if not _addition(near):
        return {}
    return {pair: pair.mask.path.with_name(names[0]) for pair, names in near.items()}


def _near(pairs: Sequence[Listed]) -> dict[Listed, list[str]]:
    """For each mask that is missing, the files whose names begin as it does."""
    names = {folder: _names_in(folder) for folder in {pair.mask.path.parent for pair in pairs}}
    return {pair: _beginning_with(pair.mask.path.stem, names[pair.mask.path.parent]) for pair in pairs}


def _addition(near: Mapping[Listed, Sequence[str]]) -> str:
    """What all missing masks have behind their names, ``_L.png``; empty if that is not one addition."""
    endings = {names[0].removeprefix(pair.mask.path.stem) if len(names) == 1 else "" for pair, names in near.items()}
    ending = endings.pop() if len(endings) == 1 else ""
    return "" if not ending.endswith(".png") or ending[0].isalnum() or ending == ".png" else ending


def _renaming(near: Mapping[Listed, Sequence[str]], command: str) -> str | None:
    """The command that gives masks their images' names, if all missing masks exist with one addition to their names."""
    folders = {pair.mask.path.parent for pair in near}
    ending = _addition(near)
    if len(folders) > 1 or not ending:
        return None
    folder = shlex.quote(str(folders.pop()))
    rename = f'for f in {folder}/*{ending}; do mv -n "$f" "${{f%{ending}}}.png"; done'
    return f"{rename}; {command} does it in the copy" if command else rename


def _shared_masks(source: DatasetSource, pairs: Mapping[Listed, str]) -> Finding | None:
    images: dict[MaskRef, list[Path]] = {}
    for pair in pairs:
        if pair.image not in images.setdefault(pair.mask, []):
            images[pair.mask].append(pair.image)
    shared = {mask: sharing for mask, sharing in images.items() if len(sharing) > 1}
    if not shared:
        return None
    items = [Item(str(image), f"would share {mask}") for mask, sharing in shared.items() for image in sharing]
    finding = make_finding(FindingKind.SHARED_MASK, items, command=repair_command(source))
    rule = RULES[finding.kind]
    return replace(finding, found=number(len(shared), rule.one, rule.many))  # masks are counted, images are listed


def splits_to_check(data: Described, splits: Sequence[str] = ()) -> list[str]:
    """The given splits, or the usual ones: ``train``, ``val``, and ``test`` if it exists; ``trainval`` and ``test`` if
    there is no ``train``.
    """
    there = data.splits()
    if splits:
        return list(splits)
    if "trainval" in there and "train" not in there:
        return ["trainval", "test"]
    return [split for split in USUAL_SPLITS if split != "test" or split in there]


def read_lists(source: DatasetSource, splits: Sequence[str] = ()) -> tuple[dict[str, list[Listed]], list[Finding]]:
    """List the pairs of each split, with findings about splits that can't be listed.

    Args:
        source: the dataset.
        splits: as in :func:`splits_to_check`.
    """
    lists: dict[str, list[Listed]] = {}
    findings = []
    for split in splits_to_check(source, splits):
        try:
            lists[split] = list_pairs(source, split)
        except DatasetError as error:
            findings.append(_no_split(source, split, str(error), needed=bool(splits) or split == "train"))
            continue
        if not lists[split]:
            findings.append(_no_split(source, split, f"split '{split}' of {source.root} has no images", needed=True))
    return lists, findings


def _no_split(source: DatasetSource, split: str, found: str, *, needed: bool) -> Finding:
    file = source.list_file(split)
    if file.suffix == ".txt":
        fix = f"correct the name, or write {file}, one name per line"
    elif file.exists():
        fix = f"name another split, or correct what is in {file}"
    else:
        fix = f"correct the name, or add {file}"
    return no_split(split, found, fix, Item(str(file)), needed=needed)


def no_split(split: str, found: str, fix: str, item: Item, *, needed: bool) -> Finding:
    """A finding about a split that does not exist: an error if it is needed, else a warning."""
    without = "; to train without validation: --set data.val_split=none" if split == "val" else ""
    finding = make_finding(FindingKind.NO_SPLIT, [item], fix=fix + without)
    return replace(finding, found=found, severity="error" if needed else "warning")


def unused_files(source: DatasetSource) -> list[Finding]:
    """Masks without an image, and images in no split."""
    findings = []
    if masks := source.unused_masks():
        items = [Item(str(mask)) for mask in masks]
        findings.append(make_finding(FindingKind.EXTRA_MASK, items, command=repair_command(source)))
    if images := source.unlisted_images():
        findings.append(make_finding(FindingKind.UNLISTED_IMAGE, [Item(str(image)) for image in images]))
    return findings
