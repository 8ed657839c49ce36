"""What is wrong with a dataset as a whole: images that are in it twice, and classes that lack."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

from atrous.data.doctor.inspect import ImageFacts
from atrous.data.doctor.list_rules import Lists, how_to_fix
from atrous.data.doctor.pair_rules import Facts
from atrous.data.files.masks import MaskForm
from atrous.data.findings import Finding, Item, number
from atrous.data.sources.base import DatasetSource, Listed
from atrous.data.stats import ClassCounts

Images = Mapping[Hashable, list[Listed]]
"""Pairs by what their images show."""


def content(pair: Listed, facts: Facts) -> Hashable:
    """What two pairs have in common that show the same image: pixels, or where none were read, the file."""
    seen = facts.get(pair)
    return seen.image.digest if seen and isinstance(seen.image, ImageFacts) and seen.image.digest else pair.image


def contains(split: str, other: str) -> bool:
    """Whether one of two splits holds the other on purpose, as their names say: ``trainaug`` and ``train``."""
    return split in other or other in split or "all" in (split, other)


def repeated_images(source: DatasetSource, lists: Lists, facts: Facts) -> list[Finding]:
    """Images that are in several splits, or in one split more than once.

    Args:
        source: where the files lie.
        lists: the pairs of each split.
        facts: images are compared by their pixels where these were read, by their files otherwise.
    """
    splits = {split: _by_content(pairs, facts) for split, pairs in lists.items()}
    leaks: list[Item] = []
    meant: list[Item] = []
    for (split, images), (other, others) in combinations(splits.items(), 2):
        items = [_also(images[key][0], split, others[key][0], other) for key in images if key in others]
        (meant if contains(split, other) else leaks).extend(items)
    findings = []
    if leaks:
        findings.append(
            Finding(
                "shared-image",
                "error",
                f"{number(len(leaks), 'image is', 'images are')} in more than one split, so a model is judged on "
                "what it learned by heart",
                "each image in one split",
                f"take them out of one of the two; {how_to_fix(source)} takes them out of train",
                tuple(leaks),
            )
        )
    if meant:
        findings.append(
            Finding(
                "shared-image",
                "warning",
                f"{number(len(meant), 'image is', 'images are')} in two splits, one part of the other by its name",
                "never to learn from the one and be judged on the other",
                "nothing, if you do not",
                tuple(meant),
            )
        )
    twins = [
        twin for split, images in splits.items() for pairs in images.values() for twin in _twins(split, pairs, facts)
    ]
    if twins:
        findings.append(
            Finding(
                "repeated-image",
                "note",
                f"{number(len(twins), 'image is', 'images are')} in a split more than once",
                "each image once, unless it should count more",
                "nothing, or take the repetitions out of the list",
                tuple(twins),
            )
        )
    return findings


def _by_content(pairs: Sequence[Listed], facts: Facts) -> Images:
    images: dict[Hashable, list[Listed]] = {}
    for pair in pairs:
        images.setdefault(content(pair, facts), []).append(pair)
    return images


def _also(pair: Listed, split: str, other: Listed, other_split: str) -> Item:
    which = "" if other.image == pair.image else f" as {other.image}"
    return Item(str(pair.image), f"in {split}, and in {other_split}{which}")


def _twins(split: str, pairs: Sequence[Listed], facts: Facts) -> list[Item]:
    first = pairs[0]
    items = []
    for pair in pairs[1:]:
        masks = {getattr(facts[p].mask, "digest", None) for p in (first, pair) if p in facts}
        differ = ", with another mask" if len(masks) > 1 else ""
        which = "listed again" if pair.image == first.image else f"the same as {first.image}"
        items.append(Item(str(pair.image), f"{which} in {split}{differ}"))
    return items


def missing_classes(source: DatasetSource, form: MaskForm, counts: Mapping[str, ClassCounts]) -> list[Finding]:
    """Classes that never occur, or only in some splits."""
    images = {split: count.images for split, count in counts.items() if count.images.any()}
    not_learned, not_judged = [], []
    for label, name in enumerate(form.label_set.names):
        without = [split for split in images if not images[split][label]]
        with_it = [
            f"{number(int(images[split][label]), 'image')} of {split}" for split in images if split not in without
        ]
        detail = f"not in {' and '.join(without)}; in {' and '.join(with_it)}" if with_it else "nowhere"
        if without and (not with_it or any(split.startswith("train") for split in without)):
            not_learned.append(Item(name, detail))
        elif without:
            not_judged.append(Item(name, detail))
    where = f", or take them out of {source.labels_file}" if source.labels_file else ""
    findings = []
    if not_learned:
        findings.append(
            Finding(
                "absent-class",
                "warning",
                f"{number(len(not_learned), 'class', 'classes')} of {len(form.label_set)} can't be learned",
                "each class in some images of train",
                f"add images of them{where}; nothing, if you know it",
                tuple(not_learned),
            )
        )
    if not_judged:
        findings.append(
            Finding(
                "unjudged-class",
                "note",
                f"{number(len(not_judged), 'class', 'classes')} of {len(form.label_set)} are missing from a split",
                "each class in some images of each split",
                "nothing, or move images of them; a mean leaves out what does not occur",
                tuple(not_judged),
            )
        )
    return findings
