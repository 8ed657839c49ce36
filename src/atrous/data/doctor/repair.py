"""A repaired copy of a dataset: what can be repaired with certainty is repaired, the rest is left out and named."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from atrous.data.doctor.dataset_rules import contains, content
from atrous.data.doctor.inspect import ImageFacts, MaskFacts, PairFacts
from atrous.data.doctor.pair_rules import (
    color_form,
    complaints,
    drawn_upright,
    foreground,
    label_counts,
    nothing_but_void,
)
from atrous.data.doctor.renamed import with_renamed_masks
from atrous.data.doctor.report import Checkup
from atrous.data.files.exif import turn
from atrous.data.files.find import is_file
from atrous.data.files.images import open_image
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskRef, read_mask
from atrous.data.files.orientation import agreement, size_of
from atrous.data.files.palettes import resorted
from atrous.data.files.smeared import nearest_labels
from atrous.data.files.threads import Progress
from atrous.data.finding_kinds import FindingKind
from atrous.data.finding_rules import RULES
from atrous.data.findings import SHOWN, Item, errors_of, number
from atrous.data.folder_writer import check_target, write_folder
from atrous.data.sources.base import Listed
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, LabelSet, encode_mask, ignored


@dataclass(frozen=True)
class Plan:
    """How a pair is copied.

    Args:
        form: how its mask is read.
        steps: what is repaired, as messages; empty if nothing is.
        turn_mask: whether the mask must be turned as its image is.
        enlarge: whether the mask must be enlarged to the size of its image.
        tolerance: how far the colour of a pixel may be from that of its class in a mask that was compressed with loss.
        note: about the mask, behind its name.
    """

    form: MaskForm
    steps: tuple[str, ...] = ()
    turn_mask: bool = False
    enlarge: bool = False
    tolerance: int | None = None
    note: str = ""


@dataclass(frozen=True)
class RepairedCopy:
    """What :func:`repair` did.

    Args:
        folder: the copy.
        splits: how many pairs are in each split of it.
        done: the files that were repaired, by what was done.
        left_out: pairs that could not be repaired, each with the reason.
    """

    folder: Path
    splits: Mapping[str, int]
    done: Mapping[str, list[str]]
    left_out: tuple[Item, ...]

    def text(self) -> str:
        """The result as text."""
        sizes = ", ".join(f"{split} {number(count, 'pair')}" for split, count in self.splits.items())
        lines = [f"{self.folder} is a repaired copy: {sizes}"]
        for step, files in self.done.items():
            lines += [f"  {step}: {number(len(files), 'file')}", *_listed(files)]
        if self.left_out:
            lines += [f"  left out: {number(len(self.left_out), 'pair')}", *_listed(list(map(str, self.left_out)))]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "splits": dict(self.splits),
            "done": dict(self.done),
            "left_out": [{"name": item.name, "detail": item.detail} for item in self.left_out],
        }


def _listed(files: list[str]) -> list[str]:
    more = [f"    … and {len(files) - SHOWN} more"] if len(files) > SHOWN else []
    return [f"    {file}" for file in files[:SHOWN]] + more


def repair(
    checkup: Checkup,
    folder: Path,
    progress: Progress | None = None,
    *,
    enlarge_masks: bool = False,
    tolerance: int | None = None,
) -> RepairedCopy:
    """Write a copy of a dataset as a folder of images, palette masks, ``labels.toml`` and lists.

    Coloured masks of known colours and masks of two values in a dataset of two classes become class numbers; images
    that EXIF turns become upright PNGs, and their masks are turned with them; images in several splits are taken out
    of ``train``. What can't be repaired with certainty is left out. The original is only read.

    Args:
        checkup: of the dataset, on disk.
        folder: where to write; new or empty.
        progress: called with the number of pairs written and their total.
        enlarge_masks: enlarge masks of a half, a third, … of the size of their images, without smoothing.
        tolerance: take masks that were compressed with loss by the nearest colour of a class, if each channel is within
            this of it, and ignore other pixels; None to leave such masks out.

    Raises:
        DatasetError: ``folder`` exists and is not empty, ``labels.toml`` must be corrected first, nothing is left to
            write, or the dataset is not on disk or has more than a folder of images and masks can contain.
    """
    root = checkup.source.root
    if root is None:
        raise DatasetError(f"{checkup.source.spec} is not a dataset on disk, so it has no files to copy and repair")
    check_target(folder, root)
    if not checkup.source.repairable:
        raise DatasetError(
            f"{checkup.source.spec} has more than images with one mask each, and a repaired copy would lose it; fix "
            "its own files as described in the findings"
        )
    if unclear := [finding for finding in checkup.findings if finding.kind == FindingKind.LABELS_FILE]:
        raise DatasetError(f"{unclear[0].found}; correct that first, since nothing else declares what the masks mean")
    checkup, renamed = with_renamed_masks(checkup)
    if any(finding.kind == FindingKind.UNCLEAR_255 for finding in errors_of(checkup.findings)):
        raise DatasetError(
            f"255 may be a class or mark ignored pixels in {checkup.source.spec}; declare which in labels.toml first, "
            "as its finding shows, since ignoring a class can't be undone in a copy"
        )
    plans, left_out = _plan_all(checkup, _Wishes(enlarge_masks, tolerance))
    lists = {split: [pair for pair in pairs if pair in plans] for split, pairs in checkup.lists.items()}
    done = _take_out_of_train(lists, checkup.facts)
    done |= {"mask: found by its image's name with an addition": renamed} if renamed else {}
    pairs = list(dict.fromkeys(pair for listed in lists.values() for pair in listed))
    if not pairs:
        raise DatasetError(f"nothing of {checkup.source.spec} can be repaired with certainty; see its findings")
    labels = checkup.form.label_set

    def write(pair: Listed, image: Path, mask: Path) -> None:
        _write(pair, plans[pair], labels, image, mask)

    splits = write_folder(folder, lists, MaskForm(labels), write, progress)
    for pair in pairs:
        for step in plans[pair].steps:
            mask = f"{pair.mask}{plans[pair].note}"
            done.setdefault(step, []).append(str(pair.image) if step.startswith("image") else mask)
    return RepairedCopy(folder, splits, done, tuple(left_out))


class _Wishes(NamedTuple):
    """What is repaired on request alone, as in :func:`repair`."""

    enlarge_masks: bool
    tolerance: int | None


def _plan_all(checkup: Checkup, wishes: _Wishes) -> tuple[dict[Listed, Plan], list[Item]]:
    """What to do with each pair that can be in the copy, and why the others can't."""
    form = checkup.form
    if nothing_but_void(form, checkup.facts) and len(form.label_set) == 2:
        form = replace(form, values=(0, IGNORE))
    plans: dict[Listed, Plan] = {}
    left_out: dict[Item, None] = {}
    images: dict[MaskRef, set[Path]] = {}
    pairs = list(dict.fromkeys(pair for listed in checkup.lists.values() for pair in listed))
    for pair in pairs:
        images.setdefault(pair.mask, set()).add(pair.image)
    for pair in pairs:
        if not (seen := checkup.facts.get(pair)):
            plan: Plan | str = "no mask" if is_file(pair.image) else "not there"
        elif len(images[pair.mask]) > 1:
            plan = f"shares {pair.mask} with another image"
        else:
            plan = _plan(pair, seen, form, wishes)
        if isinstance(plan, Plan):
            plans[pair] = plan
        else:
            left_out[Item(str(pair.image), plan)] = None
    return plans, list(left_out)


def _plan(pair: Listed, seen: PairFacts, form: MaskForm, wishes: _Wishes) -> Plan | str:
    """What to do with a pair, or why nothing can be done."""
    image, mask = seen.image, seen.mask
    if isinstance(image, str) or isinstance(mask, str):
        return image if isinstance(image, str) else f"mask: {mask}"
    plan = Plan(form, turn_mask=agreement(mask.size, image.size, image.orientation, form.orientation) == "turn it")
    for kind, item in complaints(pair, seen, form):
        if RULES[kind].repair == "keep":
            continue
        if kind == FindingKind.SIZE_MISMATCH and wishes.enlarge_masks and _is_fraction(mask, image):
            plan = replace(plan, enlarge=True, steps=(*plan.steps, "mask: enlarged to the size of its image"))
            continue
        if kind == FindingKind.LOSSY_MASK and wishes.tolerance is not None:
            try:
                labels = nearest_labels(pair.mask.open(), form, wishes.tolerance)
            except InputError as error:
                return str(Item(kind, str(error)))
            step = f"mask: APPROXIMATED by the nearest class within {wishes.tolerance}, other pixels ignored"
            note = f" ({ignored(labels).mean():.1%} of its pixels ignored)"
            plan = replace(plan, tolerance=wishes.tolerance, steps=(*plan.steps, step), note=note)
            if ignored(labels).all():
                return str(FindingKind.ALL_IGNORED)
            continue
        repaired = _repaired(plan, kind, image, mask, seen.upright_fit) if RULES[kind].repair == "repair" else None
        if repaired is None:
            return str(Item(kind, item.detail))
        plan = repaired
    counts = label_counts(mask, plan.form)
    if plan.tolerance is None and (counts is None or not counts[:-1].any()):
        return str(FindingKind.ALL_IGNORED)
    steps = plan.steps + (("mask: turned as its image is",) if plan.turn_mask else ())
    return replace(plan, steps=steps + (("image: turned upright",) if image.orientation != 1 else ()))


def _is_fraction(mask: MaskFacts, image: ImageFacts) -> bool:
    """Whether a mask has a half, a third, … of the size of its image, up to rounding."""
    factors = range(2, 17)
    sizes = {tuple(round_(side / factor) for side in image.size) for factor in factors for round_ in (floor, ceil)}
    return image.orientation == 1 and mask.size in sizes


def _repaired(
    plan: Plan, kind: FindingKind, image: ImageFacts, mask: MaskFacts, upright_fit: float | None
) -> Plan | None:
    """A plan that also repairs a mistake; None if that is not certain."""
    form = plan.form
    match kind:
        case FindingKind.RGB_MASK if colors := color_form(mask, form):
            return replace(plan, form=colors, steps=(*plan.steps, "mask: colours written as class numbers"))
        case FindingKind.PALETTE_ORDER if colors := resorted(mask.palette, form):
            return replace(plan, form=colors, steps=(*plan.steps, "mask: read by the colours of its palette"))
        case FindingKind.BINARY_MASK if len(form.label_set) == 2 and not mask.void.is_regions:
            value = foreground(mask, form) or 0
            return replace(
                plan, form=replace(form, values=(0, value)), steps=(*plan.steps, f"mask: {value} written as 1")
            )
        case FindingKind.TURNED_MASK:
            return replace(plan, turn_mask=mask.size != image.size)
        case FindingKind.UNCLEAR_ORIENTATION if (upright := drawn_upright(upright_fit)) is not None:
            return replace(plan, turn_mask=not upright)
    return None


def _take_out_of_train(lists: dict[str, list[Listed]], facts: Mapping[Listed, PairFacts]) -> dict[str, list[str]]:
    """Take images that are in two splits out of the training split, or out of the first; the files by message."""
    taken: dict[str, list[str]] = {}
    for split, other in combinations(lists, 2):
        if contains(split, other):
            continue
        loser, keeper = (other, split) if other.startswith("train") > split.startswith("train") else (split, other)
        kept = {content(pair, facts) for pair in lists[keeper]}
        if twice := [str(pair.image) for pair in lists[loser] if content(pair, facts) in kept]:
            taken[f"taken out of {loser}, being in {keeper}"] = twice
        lists[loser] = [pair for pair in lists[loser] if content(pair, facts) not in kept]
    return taken


def _write(pair: Listed, plan: Plan, label_set: LabelSet, image_target: Path, mask: Path) -> None:
    image = open_image(pair.image)
    if plan.tolerance is None:
        drawn = read_mask(pair.mask, plan.form)
    else:
        drawn = nearest_labels(pair.mask.open(), plan.form, plan.tolerance)
    if plan.enlarge:
        height, width = size_of(image.pixels)
        drawn = drawn[np.arange(height) * drawn.shape[0] // height][:, np.arange(width) * drawn.shape[1] // width]
    if image.orientation == 1:
        shutil.copyfile(pair.image, image_target)
    else:
        Image.fromarray(image.pixels).save(image_target.with_name(f"{mask.stem}.png"))
    mask.write_bytes(encode_mask(turn(drawn, image.orientation) if plan.turn_mask else drawn, label_set))
