"""The mask doctor: everything that is wrong with a dataset, in one look, with the line that mends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from atrous.data.doctor.dataset_rules import missing_classes, repeated_images
from atrous.data.doctor.inspect import PairFacts, glance, look, look_at_mask
from atrous.data.doctor.list_rules import absent_files, read_lists, unused_files
from atrous.data.doctor.remedies import findings_about
from atrous.data.doctor.report import Checkup
from atrous.data.files.threads import Progress, read_all
from atrous.data.findings import Finding, errors_of, tally, worst_first
from atrous.data.sources.base import Listed
from atrous.data.sources.registry import find_source
from atrous.errors import DatasetError

SAMPLE = 64
"""How many masks the quick look before a training reads whole."""


def check(spec: str, splits: Sequence[str] = (), progress: Progress | None = None) -> Checkup:
    """Read every image and mask of a dataset, and find all that is wrong with it.

    Args:
        spec: ``READER:PATH``, as ``folder:PATH``.
        splits: what to look at; ``train``, ``val``, and ``test`` if it is there, when left out.
        progress: called with the number of pairs read and their total after each pair.

    Raises:
        DatasetError, ImageError: the specification names no dataset.
    """
    source = find_source(spec)
    lists, findings = read_lists(source, splits)
    form, unclear = source.likely_form()
    pairs = _there(lists)
    facts = read_all(lambda pair: look(pair.image, pair.mask, form), pairs, progress)
    seen = Checkup(source, form, lists, dict(zip(pairs, facts, strict=True)))
    findings += [
        *unclear,
        *absent_files(source, lists),
        *unused_files(source),
        *findings_about(source, form, seen.facts),
    ]
    findings += repeated_images(source, lists, seen.facts)
    findings += missing_classes(source, form, {split: seen.counts(split) for split in lists})
    return replace(seen, findings=tuple(worst_first(findings)))


def quick_check(spec: str, splits: Sequence[str]) -> list[Finding]:
    """What lists, headers and a small sample of masks tell, within seconds; for everything, see :func:`check`.

    Raises:
        DatasetError, ImageError: the specification names no dataset.
    """
    source = find_source(spec)
    lists, findings = read_lists(source, splits)
    form, unclear = source.likely_form()
    pairs = _there(lists)
    facts = dict(zip(pairs, read_all(lambda pair: glance(pair.image, pair.mask), pairs), strict=True))
    sample = pairs[:: len(pairs) // SAMPLE + 1]
    for pair, mask in zip(sample, read_all(lambda pair: look_at_mask(pair.mask, form), sample), strict=True):
        facts[pair] = PairFacts(facts[pair].image, mask)
    findings += [*unclear, *absent_files(source, lists), *unused_files(source), *findings_about(source, form, facts)]
    return worst_first([*findings, *repeated_images(source, lists, facts)])


def require_healthy(spec: str, splits: Sequence[str]) -> list[Finding]:
    """Refuse a dataset that :func:`quick_check` finds errors in, naming all of them.

    Args:
        spec: ``READER:PATH``, as ``folder:PATH``.
        splits: what will be read of it, ``["train", "val"]``; ``train+val`` is one split.

    Returns:
        What is no error: warnings and notes.

    Raises:
        DatasetError: with every error, in the words of ``atrous data check``; or the specification names no dataset.
        ImageError: a folder without images.
    """
    findings = quick_check(spec, splits)
    if errors := errors_of(findings):
        blocks = "\n\n".join(finding.block() for finding in errors)
        options = " ".join(f"--split {split}" for split in splits)
        raise DatasetError(
            f"{spec} is not fit for use, {tally(errors)}:\n\n{blocks}\n\n"
            f"`atrous data check {spec} {options}` looks at every pixel"
        )
    return findings


def _there(lists: Mapping[str, Sequence[Listed]]) -> list[Listed]:
    """The pairs whose files are there, each once."""
    pairs = dict.fromkeys(pair for listed in lists.values() for pair in listed)
    return [pair for pair in pairs if pair.image.is_file() and pair.mask.exists()]
