"""Images that are nearly the same and in different splits, whatever their files are called."""

from __future__ import annotations

from atrous.data.alike import nearly_the_same
from atrous.data.doctor.dataset_rules import contains
from atrous.data.doctor.inspect import ImageFacts
from atrous.data.doctor.list_rules import Lists
from atrous.data.doctor.pair_rules import Facts
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, make_finding

MOST = 20_000
"""Images that are compared, each with each: a few seconds."""


def near_duplicates(lists: Lists, facts: Facts) -> list[Finding]:
    """A warning about images that are nearly, but not exactly, the same as one in another split.

    Args:
        lists: the pairs of each split.
        facts: of the pairs; images that were not read whole are not compared.
    """
    listed = [(split, pair) for split, pairs in lists.items() for pair in dict.fromkeys(pairs) if pair in facts]
    read = [(split, pair, facts[pair].image) for split, pair in listed]
    whole = [(split, pair, image) for split, pair, image in read if isinstance(image, ImageFacts) and image.thumbnail]
    items = []
    for one, other in nearly_the_same([image.thumbnail for _, _, image in whole[:MOST]]):
        (split, pair, image), (beside, copy, second) = whole[one], whole[other]
        if split != beside and not contains(split, beside) and image.digest != second.digest and pair != copy:
            items.append(Item(str(copy.image), f"in {beside}, like {pair.image} in {split}"))
    return [make_finding(FindingKind.NEAR_DUPLICATE, items)] if items else []
