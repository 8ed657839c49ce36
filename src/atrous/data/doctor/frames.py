"""Neighbouring frames of a video in different splits: nearly the same image is trained on and evaluated."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from atrous.data.doctor.dataset_rules import contains
from atrous.data.doctor.inspect import ImageFacts
from atrous.data.doctor.list_rules import Lists
from atrous.data.doctor.pair_rules import Facts
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, make_finding
from atrous.data.sources.base import Listed

ALIKE = 0.95
"""Neighbours are alike from this correlation of their thumbnails on."""
FEWEST = 3
"""Single images may be alike by chance; a video has at least so many neighbours that are."""


class _Frame(NamedTuple):
    number: int
    split: str
    pair: Listed


def neighbouring_frames(lists: Lists, facts: Facts) -> list[Finding]:
    """A warning if images whose names count on, ``drive_0041`` and ``drive_0042``, are alike and in different splits.

    Args:
        lists: the pairs of each split.
        facts: of the pairs; images that were not read whole are not compared.
    """
    series: dict[tuple[str, str], list[_Frame]] = {}
    for split, pairs in lists.items():
        for pair in pairs:
            if numbered := re.fullmatch(r"(.*?)(\d+)(\D*)", pair.name, re.DOTALL):
                before, number, after = numbered.groups()
                series.setdefault((before, after), []).append(_Frame(int(number), split, pair))
    beside = [
        pair for frames in series.values() for pair in pairwise(sorted(frames, key=lambda f: (f.number, f.split)))
    ]
    across = [(one, other) for one, other in beside if not contains(one.split, other.split)]
    alike = [(one, other) for one, other in across if _alike(one.pair, other.pair, facts)]
    if len(alike) < FEWEST or 2 * len(alike) < len(across):
        return []
    items = [
        Item(str(other.pair.image), f"in {other.split}, like {one.pair.image} in {one.split}") for one, other in alike
    ]
    return [make_finding(FindingKind.NEIGHBOURING_FRAMES, items)]


def _alike(one: Listed, other: Listed, facts: Facts) -> bool:
    thumbnails = [facts[pair].image.thumbnail for pair in (one, other) if _was_read(pair, facts)]  # type: ignore[union-attr]
    if len(thumbnails) < 2 or one.image == other.image:
        return False
    first, second = (np.frombuffer(thumbnail, np.uint8).astype(np.float64) for thumbnail in thumbnails)
    if min(first.std(), second.std()) < 1:
        return False
    return float(np.corrcoef(first, second)[0, 1]) > ALIKE


def _was_read(pair: Listed, facts: Facts) -> bool:
    return pair in facts and isinstance(facts[pair].image, ImageFacts) and bool(facts[pair].image.thumbnail)  # type: ignore[union-attr]
