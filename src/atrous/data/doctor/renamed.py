"""Masks that exist with an addition to their names, ``a_L.png`` for ``a.jpg``: a repaired copy takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atrous.data.doctor.inspect import look
from atrous.data.doctor.list_rules import masks_by_other_names
from atrous.data.doctor.report import Checkup
from atrous.data.files.find import is_file
from atrous.data.files.masks import MaskFile
from atrous.data.sources.base import Listed
from atrous.data.sources.guess import guess_form
from atrous.data.sources.seen_masks import masks_seen


def with_renamed_masks(checkup: Checkup) -> tuple[Checkup, list[str]]:
    """Give images without a mask the one with an addition to its name, if that is the same for all.

    Returns:
        What was checked, with these masks; and their files.
    """
    pairs = list(dict.fromkeys(pair for listed in checkup.lists.values() for pair in listed))
    missing = [pair for pair in pairs if is_file(pair.image) and not pair.mask.exists()]
    used = {pair.mask.path for pair in pairs}
    found = {pair: path for pair, path in masks_by_other_names(missing).items() if path not in used}
    if not found:
        return checkup, []
    renamed = {pair: pair._replace(mask=MaskFile(path)) for pair, path in found.items()}
    checkup = _guessed_again(checkup, [renamed.get(pair, pair) for pair in pairs])
    facts = {**checkup.facts, **{pair: look(pair.image, pair.mask, checkup.form) for pair in renamed.values()}}
    lists = {split: [renamed.get(pair, pair) for pair in listed] for split, listed in checkup.lists.items()}
    return replace(checkup, lists=lists, facts=facts), [str(path) for path in found.values()]


def _guessed_again(checkup: Checkup, pairs: list[Listed]) -> Checkup:
    """How masks are written, if only their values show it: with the masks that were found."""
    source = checkup.source
    if source.root is None or source.labels_file is None or source.labels_file.is_file():
        return checkup
    files: list[Path] = [pair.mask.path for pair in pairs if pair.mask.exists()]
    form, finding = guess_form(source.root, masks_seen(files))
    return replace(checkup, form=form, findings=(*checkup.findings, *([finding] if finding else [])))
