"""Drawing splits: stratified by class, whole groups together, near duplicates too; also folds of a cross-validation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.alike import nearly_the_same
from atrous.data.doctor.inspect import ImageFacts, MaskFacts, PairFacts, look
from atrous.data.files.find import is_file
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.threads import Progress, read_all
from atrous.data.findings import number
from atrous.data.sources.base import DatasetSource, Listed
from atrous.data.sources.registry import find_source
from atrous.errors import DatasetError, InputError
from atrous.files import replacing_folder


@dataclass(frozen=True)
class Drawn:
    """Splits that :func:`draw_splits` drew.

    Args:
        lists: the names of the images in each split.
        classes: the names of the classes.
        shares: of each split, the share of its images that contain each class.
        groups: the number of groups that stay together.
        alike: the number of images that are nearly the same as another one.
    """

    lists: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    shares: Mapping[str, tuple[float, ...]]
    groups: int
    alike: int

    def text(self) -> str:
        """The result as text: what share of the images of each split contains each class."""
        wide = max(map(len, self.classes))
        lines = [f"{'':{wide}}  " + "  ".join(f"{split:>12}" for split in self.lists)]
        lines.append(f"{'images':{wide}}  " + "  ".join(f"{len(names):>12}" for names in self.lists.values()))
        for place, name in enumerate(self.classes):
            cells = (f"{100 * shares[place]:>10.1f} %" for shares in self.shares.values())
            lines.append(f"{name:{wide}}  " + "  ".join(cells))
        alike = f", {number(self.alike, 'image')} nearly the same as another" if self.alike else ""
        return "\n".join([*lines, f"{number(self.groups, 'group')} stay together{alike}"])

    def write(self, folder: Path) -> None:
        """Write the lists, ``train.txt`` and so on, into a new folder.

        Raises:
            DatasetError: the folder is there and not empty.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DatasetError(f"{folder} is there already; move it away, or name another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as new:
            for split, names in self.lists.items():
                (new / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def draw_splits(
    spec: str,
    *,
    val: float = 0.2,
    test: float = 0.0,
    folds: int = 0,
    group: str = "",
    split: str = "all",
    seed: int = 0,
    progress: Progress | None = None,
) -> Drawn:
    """Draw splits in which each class occurs in its share of the images (Sechidis et al., ECML 2011).

    Args:
        spec: ``SOURCE:PATH``.
        val: share of the images.
        test: share of the images.
        folds: instead, that many folds: ``fold0-train`` and ``fold0-val``, and so on.
        group: a regular expression on the names of images: those in which it finds the same text (of its parentheses,
            if it has some) stay in one split. Images that are nearly the same always do.
        split: whose images are drawn from; several are joined by ``+``.
        seed: another one draws other splits.
        progress: called with the number of images read and their total.

    Raises:
        DatasetError: the dataset can't be read, or there are too few groups.
        InputError: shares that are not positive, one fold, or a pattern that is not one or does not fit a name.
    """
    parts = _parts(val, test, folds)
    source = find_source(spec)
    form = source.form()
    pairs = [pair for pair in _listed(source, split) if is_file(pair.image) and pair.mask.exists()]
    facts = list(read_all(lambda pair: look(pair.image, pair.mask, form, source.extras.images), pairs, progress))
    contains = np.array([_classes_in(pair, found, form) for pair, found in zip(pairs, facts, strict=True)], np.bool_)
    thumbnails = [found.image.thumbnail if isinstance(found.image, ImageFacts) else b"" for found in facts]
    same = list(nearly_the_same(thumbnails))
    groups = _groups([pair.name for pair in pairs], group, same)
    members = [np.flatnonzero(groups == place) for place in range(groups.max(initial=-1) + 1)]
    if len(members) < len(parts):
        raise DatasetError(f"{spec} has {number(len(members), 'group')} of images, too few for {len(parts)} splits")
    chosen = _stratified(contains, members, list(parts.values()), seed)
    drawn = {name: np.flatnonzero(chosen == place) for place, name in enumerate(parts)}
    if folds:
        everything = np.arange(len(pairs))
        drawn = {
            f"{name}-{kind}": np.setdiff1d(everything, rows) if kind == "train" else rows
            for name, rows in drawn.items()
            for kind in ("train", "val")
        }
    return Drawn(
        {name: tuple(pairs[row].name for row in rows) for name, rows in drawn.items()},
        form.label_set.names,
        {
            name: tuple(contains[rows].mean(0)) if len(rows) else (0.0,) * len(form.label_set)
            for name, rows in drawn.items()
        },
        len(members),
        len({row for pair in same for row in pair}),
    )


def _parts(val: float, test: float, folds: int) -> dict[str, float]:
    """The share of the images of each part."""
    if folds == 1 or folds < 0:
        raise InputError(f"{folds} folds; expected 2 or more")
    if folds:
        return {f"fold{place}": 1 / folds for place in range(folds)}
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise InputError(
            f"shares of {val:g} and {test:g}; expected numbers from 0 to 1 that leave some images for train"
        )
    parts = {"train": 1 - val - test, "val": val, "test": test}
    return {name: share for name, share in parts.items() if share}


def _listed(source: DatasetSource, split: str) -> list[Listed]:
    try:
        pairs = [pair for part in split.split("+") for pair in source.listed(part)]
    except DatasetError:
        if split != "all":
            raise
        pairs = [pair for part in source.splits() for pair in source.listed(part)]
    return list(dict.fromkeys(pairs))


def _classes_in(pair: Listed, facts: PairFacts, form: MaskForm) -> NDArray[np.bool_]:
    """Whether the mask of an image contains each class."""
    if not isinstance(facts.image, ImageFacts) or not isinstance(facts.mask, MaskFacts):
        problem = facts.image if isinstance(facts.image, str) else facts.mask
        raise DatasetError(f"{pair.image}: {problem}; `atrous data check` lists all such images")
    there = np.zeros(len(form.label_set), np.bool_)
    disk = form.colors_on_disk() if form.encoding == "rgb" else form.values_on_disk()
    found = facts.mask.colors if form.encoding == "rgb" else facts.mask.values
    labels = [disk[value] for value in found or () if value in disk]  # type: ignore[index]  # of the same kind
    there[[label for label in labels if label < len(there)]] = True
    return there


def _groups(names: Sequence[str], pattern: str, same: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The number of the group of each image: those of one text by the pattern, and near duplicates."""
    leader = list(range(len(names)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    first: dict[str, int] = {}
    pairs = [(first.setdefault(text, row), row) for row, text in enumerate(_texts(names, pattern))] if pattern else []
    for one, other in [*pairs, *same]:
        leader[find(other)] = find(one)
    _, groups = np.unique([find(place) for place in range(len(names))], return_inverse=True)
    return groups.astype(np.int64)


def _texts(names: Sequence[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"the pattern {pattern!r} is not a regular expression ({error})") from error
    texts = []
    for name in names:
        found = compiled.search(name)
        if not found:
            raise InputError(f"the pattern {pattern!r} finds nothing in the name {name}")
        texts.append("\n".join(part or "" for part in found.groups()) if compiled.groups else found[0])
    return texts


def _stratified(
    contains: NDArray[np.bool_], members: Sequence[NDArray[np.int64]], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """The part of each image: groups with the rarest class first, each to the part that lacks most of it."""
    counts = np.array([contains[rows].sum(0) for rows in members], np.float64)
    sizes = np.array([len(rows) for rows in members], np.float64)
    wanted, room = np.outer(shares, counts.sum(0)), np.array(shares) * sizes.sum()
    chosen, left = np.zeros(len(contains), np.int64), list(range(len(members)))
    order = {place: _hash(seed, place) for place in left}
    while left:
        remaining = counts[left].sum(0)
        rarest = int(np.where(remaining > 0, remaining, np.inf).argmin()) if remaining.any() else None
        here = left if rarest is None else [place for place in left if counts[place, rarest]]
        for place in sorted(here, key=lambda place: (-sizes[place], order[place])):
            lacking = room if rarest is None else wanted[:, rarest]
            part = max(range(len(shares)), key=lambda part: (lacking[part], room[part]))
            wanted[part] -= counts[place]
            room[part] -= sizes[place]
            chosen[members[place]] = part
        left = [place for place in left if place not in set(here)]
    return chosen


def _hash(seed: int, place: int) -> bytes:
    return hashlib.sha256(f"{seed} {place}".encode()).digest()
