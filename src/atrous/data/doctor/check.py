"""The dataset doctor: everything that is wrong with a dataset in one pass, with the line that fixes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from atrous.data.doctor.dataset_rules import missing_classes, repeated_images
from atrous.data.doctor.duplicates import near_duplicates
from atrous.data.doctor.frames import neighbouring_frames
from atrous.data.doctor.in_memory import check_datasets
from atrous.data.doctor.inspect import PairFacts, glance, look, look_at_mask
from atrous.data.doctor.list_rules import (
    USUAL_SPLITS,
    absent_files,
    no_split,
    read_lists,
    splits_to_check,
    unused_files,
)
from atrous.data.doctor.pair_rules import with_known_colors
from atrous.data.doctor.remedies import findings_about
from atrous.data.doctor.report import Checkup
from atrous.data.doctor.shape_rules import shape_findings
from atrous.data.files.find import is_file
from atrous.data.files.threads import Progress, read_all
from atrous.data.findings import Finding, Item, errors_of, tally, worst_first
from atrous.data.sources.base import Listed
from atrous.data.sources.registry import find_opener, find_source, open_registered
from atrous.errors import DatasetError

SAMPLE = 64
"""How many masks the quick check before a training reads whole."""
FEW = 16
"""How many windows of a large one it reads."""


def check(spec: str, splits: Sequence[str] = (), progress: Progress | None = None) -> Checkup:
    """Read every image and mask of a dataset, and find everything that is wrong with it.

    Args:
        spec: ``SOURCE:PATH``, as ``folder:PATH``, or the name of a registered dataset before the colon.
        splits: what to check; ``train``, ``val``, and ``test`` if it exists, when left out.
        progress: called with the number of pairs read and their total after each pair.

    Raises:
        DatasetError, ImageError: the specification is not of a dataset.
    """
    if find_opener(spec):
        return _check_registered(spec, splits, progress)
    source = find_source(spec)
    lists, findings = read_lists(source, splits)
    form, unclear = source.likely_form()
    pairs, images = _existing(lists), source.extras.images
    facts = read_all(lambda pair: look(pair.image, pair.mask, form, images), pairs, progress)
    facts_of = dict(zip(pairs, facts, strict=True))
    form = with_known_colors(form, facts_of)
    tried = tuple(splits_to_check(source, splits))
    seen = Checkup(source, form, tried, lists, facts_of)
    findings += [
        *unclear,
        *absent_files(source, lists),
        *unused_files(source),
        *_more_than(unclear, findings_about(source, form, seen.facts)),
        *repeated_images(source, lists, seen.facts),
        *neighbouring_frames(lists, seen.facts),
        *near_duplicates(lists, seen.facts),
        *shape_findings(pairs),
        *missing_classes(source, form, {split: seen.counts(split) for split in lists}),
    ]
    return replace(seen, findings=tuple(worst_first(findings)))


def quick_check(spec: str, splits: Sequence[str]) -> list[Finding]:
    """What lists, headers and a small sample of masks show, within seconds; for everything, see :func:`check`.

    Raises:
        DatasetError, ImageError: the specification is not of a dataset.
    """
    if find_opener(spec):
        return list(_check_registered(spec, splits, most=SAMPLE).findings)
    source = find_source(spec)
    lists, findings = read_lists(source, splits)
    form, unclear = source.likely_form()
    pairs, images = _existing(lists), source.extras.images
    facts = dict(zip(pairs, read_all(lambda pair: glance(pair.image, pair.mask, images), pairs), strict=True))
    sample = pairs[:: len(pairs) // SAMPLE + 1]
    for pair, mask in zip(sample, read_all(lambda pair: look_at_mask(pair.mask, form, FEW), sample), strict=True):
        facts[pair] = PairFacts(facts[pair].image, mask)
    form = with_known_colors(form, facts)
    about = _more_than(unclear, findings_about(source, form, facts))
    findings += [*unclear, *absent_files(source, lists), *unused_files(source), *about]
    return worst_first([*findings, *repeated_images(source, lists, facts)])


def require_healthy(spec: str, splits: Sequence[str]) -> list[Finding]:
    """Refuse a dataset in which :func:`quick_check` finds errors, naming all of them.

    Args:
        spec: as in :func:`check`.
        splits: what will be read of it, ``["train", "val"]``; ``train+val`` is one split.

    Returns:
        The other findings: warnings and notes.

    Raises:
        DatasetError: with every error, as ``atrous data check`` reports it; or the specification is not of a dataset.
        ImageError: a folder without images.
    """
    findings = quick_check(spec, splits)
    if errors := errors_of(findings):
        blocks = "\n\n".join(finding.block() for finding in errors)
        options = " ".join(f"--split {split}" for split in splits)
        raise DatasetError(
            f"{spec} can't be used, {tally(errors)}:\n\n{blocks}\n\n"
            f"`atrous data check {spec} {options}` looks at every pixel"
        )
    return findings


def _more_than(known: Sequence[Finding], findings: Sequence[Finding]) -> list[Finding]:
    """The findings that name a file which none of the same kind that is known names."""
    named = {(finding.kind, item.name) for finding in known for item in finding.items}
    return [found for found in findings if any((found.kind, item.name) not in named for item in found.items)]


def _check_registered(
    spec: str, splits: Sequence[str], progress: Progress | None = None, most: int | None = None
) -> Checkup:
    """Check the splits of a registered dataset; usual ones that it does not have are findings, as elsewhere."""
    opened, findings = {}, []
    for split in splits or USUAL_SPLITS:
        try:
            opened[split] = open_registered(spec, split)
        except DatasetError as error:
            if splits or split != "test":
                needed = bool(splits) or split == "train"
                findings.append(no_split(split, str(error), "name another split", Item(split), needed=needed))
    if not opened:
        raise DatasetError("\n".join(finding.sentence() for finding in findings))
    checkup = check_datasets(opened, progress, spec=spec, most=most)
    return replace(checkup, findings=tuple(worst_first([*findings, *checkup.findings])))


def _existing(lists: Mapping[str, Sequence[Listed]]) -> list[Listed]:
    """The pairs whose files exist, each once."""
    pairs = dict.fromkeys(pair for listed in lists.values() for pair in listed)
    return [pair for pair in pairs if is_file(pair.image) and pair.mask.exists()]
