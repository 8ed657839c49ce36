"""A mended copy of a dataset: what can be put right with certainty is, the rest is left out and named."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL import Image

from atrous.data.doctor.dataset_rules import contains, content
from atrous.data.doctor.inspect import PairFacts
from atrous.data.doctor.pair_rules import (
    color_form,
    complaints,
    drawn_upright,
    foreground,
    label_counts,
    nothing_but_void,
)
from atrous.data.doctor.remedies import is_error
from atrous.data.doctor.report import Checkup
from atrous.data.files.images import open_image, turn
from atrous.data.files.masks import MaskForm, MaskRef, read_mask
from atrous.data.files.orientation import agreement
from atrous.data.files.threads import Progress
from atrous.data.findings import SHOWN, Item, number
from atrous.data.folder_writer import check_target, write_folder
from atrous.data.sources.base import Listed
from atrous.errors import DatasetError
from atrous.labels import IGNORE, LabelSet, encode_mask


@dataclass(frozen=True)
class Plan:
    """How a pair is brought into the copy.

    Args:
        form: how its mask is to be read.
        steps: what is mended, in words; empty if nothing is.
        turn_mask: whether the mask must be turned as its image is.
    """

    form: MaskForm
    steps: tuple[str, ...] = ()
    turn_mask: bool = False


@dataclass(frozen=True)
class Mended:
    """What :func:`mend` did.

    Args:
        folder: the copy.
        splits: how many pairs are in each split of it.
        done: the files that were mended, by what was done.
        left_out: pairs that could not be mended, each with the reason.
    """

    folder: Path
    splits: Mapping[str, int]
    done: Mapping[str, list[str]]
    left_out: tuple[Item, ...]

    def text(self) -> str:
        """The same for a person."""
        held = ", ".join(f"{split} {number(count, 'pair')}" for split, count in self.splits.items())
        lines = [f"{self.folder} is a mended copy: {held}"]
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


def mend(checkup: Checkup, folder: Path, progress: Progress | None = None) -> Mended:
    """Write a copy of a dataset as a folder of images, palette masks, ``labels.toml`` and lists.

    Coloured masks of known colours and masks of two values in a dataset of two classes become class numbers; images
    that EXIF turns become upright PNGs, their masks with them; an image in several splits stays out of ``train``.
    What can't be mended with certainty is left out. The original is only read.

    Args:
        checkup: what is known of the dataset.
        folder: where to write; new or empty.
        progress: called with the number of pairs written and their total.

    Raises:
        DatasetError: ``folder`` is in use, ``labels.toml`` must be corrected first, nothing is left to write, or the
            dataset has more than a folder of images and masks can hold.
    """
    check_target(folder, checkup.source.root)
    if checkup.source.extras.folders():
        raise DatasetError(
            f"{checkup.source.spec} has more than images with one mask each, and a mended copy would lose it; mend its "
            "own files as the findings say"
        )
    if unclear := [finding for finding in checkup.findings if finding.kind == "labels-file"]:
        raise DatasetError(f"{unclear[0].found}; correct that first, since nothing else says what the masks mean")
    plans, left_out = _plan_all(checkup)
    lists = {split: [pair for pair in pairs if pair in plans] for split, pairs in checkup.lists.items()}
    done = _take_out_of_train(lists, checkup.facts)
    pairs = list(dict.fromkeys(pair for listed in lists.values() for pair in listed))
    if not pairs:
        raise DatasetError(f"nothing of {checkup.source.spec} can be mended with certainty; see its findings")
    labels = checkup.form.label_set

    def write(pair: Listed, image: Path, mask: Path) -> None:
        _write(pair, plans[pair], labels, image, mask)

    splits = write_folder(folder, lists, MaskForm(labels), write, progress)
    for pair in pairs:
        for step in plans[pair].steps:
            done.setdefault(step, []).append(str(pair.image if step.startswith("image") else pair.mask))
    return Mended(folder, splits, done, tuple(left_out))


def _plan_all(checkup: Checkup) -> tuple[dict[Listed, Plan], list[Item]]:
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
            plan: Plan | str = "no mask" if pair.image.is_file() else "not there"
        elif len(images[pair.mask]) > 1:
            plan = f"shares {pair.mask} with another image"
        else:
            plan = _plan(pair, seen, form)
        if isinstance(plan, Plan):
            plans[pair] = plan
        else:
            left_out[Item(str(pair.image), plan)] = None
    return plans, list(left_out)


def _plan(pair: Listed, seen: PairFacts, form: MaskForm) -> Plan | str:
    """What to do with a pair, or why nothing can be done."""
    image, mask = seen.image, seen.mask
    if isinstance(image, str) or isinstance(mask, str):
        return image if isinstance(image, str) else f"mask: {mask}"
    plan = Plan(form, turn_mask=agreement(mask.size, image.size, image.orientation, form.orientation) == "turn it")
    for kind, item in complaints(pair, seen, form):
        upright = drawn_upright(seen.upright_fit)
        if kind == "rgb-mask" and (colors := color_form(mask, form)):
            plan = replace(plan, form=colors, steps=(*plan.steps, "mask: colours written as class numbers"))
        elif kind == "binary-mask" and len(form.label_set) == 2:
            values = (0, foreground(mask, form) or 0)
            plan = replace(
                plan,
                form=replace(form, values=values),
                steps=(*plan.steps, f"mask: {values[1]} written as 1"),
            )
        elif kind == "turned-mask":
            plan = replace(plan, turn_mask=mask.size != image.size)
        elif kind == "unclear-orientation" and upright is not None:
            plan = replace(plan, turn_mask=not upright)
        elif kind == "all-void" or is_error(kind):
            return f"{kind}: {item.detail}" if item.detail else kind
    counts = label_counts(mask, plan.form)
    if counts is None or not counts[:IGNORE].any():
        return "all-void"
    steps = plan.steps + (("mask: turned as its image is",) if plan.turn_mask else ())
    return replace(plan, steps=steps + (("image: turned upright",) if image.orientation != 1 else ()))


def _take_out_of_train(lists: dict[str, list[Listed]], facts: Mapping[Listed, PairFacts]) -> dict[str, list[str]]:
    """Take images that are in two splits out of the one that is learned from, or of the first; which, by words."""
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
    image, drawn = open_image(pair.image), read_mask(pair.mask, plan.form)
    if image.orientation == 1:
        shutil.copyfile(pair.image, image_target)
    else:
        Image.fromarray(image.pixels).save(image_target.with_name(f"{mask.stem}.png"))
    mask.write_bytes(encode_mask(turn(drawn, image.orientation) if plan.turn_mask else drawn, label_set))
