"""Findings about a dataset as a whole: images in several splits, repeated images, and missing classes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

from atrous.data.doctor.inspect import ImageFacts
from atrous.data.doctor.list_rules import Lists, repair_command
from atrous.data.doctor.pair_rules import Facts
from atrous.data.files.mask_form import MaskForm
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, make_finding, number
from atrous.data.sources.base import Described, Listed
from atrous.data.stats import ClassCounts

Images = Mapping[Hashable, list[Listed]]
"""Pairs by the content of their images."""


def content(pair: Listed, facts: Facts) -> Hashable:
    """A key that pairs of the same image share: of its pixels if these were read, else its file."""
    seen = facts.get(pair)
    return seen.image.digest if seen and isinstance(seen.image, ImageFacts) and seen.image.digest else pair.image


def contains(split: str, other: str) -> bool:
    """Whether one of two splits contains the other on purpose, by their names: ``trainaug`` and ``train``."""
    return split in other or other in split or "all" in (split, other)


def repeated_images(data: Described, lists: Lists, facts: Facts) -> list[Finding]:
    """Images in several splits, or in one split more than once.

    Args:
        data: the dataset.
        lists: the pairs of each split.
        facts: images are compared by their pixels if these were read, by their files otherwise.
    """
    splits = {split: _by_content(pairs, facts) for split, pairs in lists.items()}
    leaks: list[Item] = []
    nested: list[Item] = []
    for (split, images), (other, others) in combinations(splits.items(), 2):
        items = [_also(images[key][0], split, others[key][0], other) for key in images if key in others]
        (nested if contains(split, other) else leaks).extend(items)
    repeated = [
        item for split, images in splits.items() for pairs in images.values() for item in _repeats(split, pairs, facts)
    ]
    kinds = {
        FindingKind.SHARED_IMAGE: leaks,
        FindingKind.NESTED_SPLITS: nested,
        FindingKind.REPEATED_IMAGE: repeated,
    }
    return [make_finding(kind, items, command=repair_command(data)) for kind, items in kinds.items() if items]


def _by_content(pairs: Sequence[Listed], facts: Facts) -> Images:
    images: dict[Hashable, list[Listed]] = {}
    for pair in pairs:
        images.setdefault(content(pair, facts), []).append(pair)
    return images


def _also(pair: Listed, split: str, other: Listed, other_split: str) -> Item:
    which = "" if other.image == pair.image else f" as {other.image}"
    return Item(str(pair.image), f"in {split}, and in {other_split}{which}")


def _repeats(split: str, pairs: Sequence[Listed], facts: Facts) -> list[Item]:
    first = pairs[0]
    items = []
    for pair in pairs[1:]:
        masks = {getattr(facts[p].mask, "digest", None) for p in (first, pair) if p in facts}
        differ = ", with another mask" if len(masks) > 1 else ""
        which = "listed again" if pair.image == first.image else f"the same as {first.image}"
        items.append(Item(str(pair.image), f"{which} in {split}{differ}"))
    return items


def missing_classes(data: Described, form: MaskForm, counts: Mapping[str, ClassCounts]) -> list[Finding]:
    """Classes that never occur, or only in some splits.

    Args:
        data: the dataset.
        form: how its masks are written.
        counts: class counts of each split.
    """
    images = {split: count.images for split, count in counts.items() if count.images.any()}
    not_learned, not_evaluated = [], []
    for label, name in enumerate(form.label_set.names):
        without = [split for split in images if not images[split][label]]
        with_it = [
            f"{number(int(images[split][label]), 'image')} of {split}" for split in images if split not in without
        ]
        detail = f"not in {' and '.join(without)}; in {' and '.join(with_it)}" if with_it else "nowhere"
        if without and (not with_it or any(split.startswith("train") for split in without)):
            not_learned.append(Item(name, detail))
        elif without:
            not_evaluated.append(Item(name, detail))
    total = len(form.label_set)
    findings = []
    if not_learned:
        where = f", or take them out of {data.labels_file}" if data.labels_file else ""
        fix = f"add images of them{where}; nothing, if that is intended"
        findings.append(make_finding(FindingKind.ABSENT_CLASS, not_learned, fix=fix, total=total))
    if not_evaluated:
        findings.append(make_finding(FindingKind.UNEVALUATED_CLASS, not_evaluated, total=total))
    return findings
