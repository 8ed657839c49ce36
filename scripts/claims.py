"""What a paper claims, held against the rows of a study: each claim with its figures and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

Facts = Mapping[str, Mapping[str, Any]]
"""What was judged of each row, by its name."""


def verdicts(study: Mapping[str, Any], facts: Facts) -> str:
    """A list of the study's claims, as far as their rows are there.

    Differences up to the largest that another seed made decide nothing, but between looks of one trained network.
    """
    trained = {row["name"]: row.get("of", row["name"]) for row in study["row"]}
    lines = [line for claim in study.get("claim", ()) if (line := _verdict(claim, facts, noise(study, facts), trained))]
    if not lines:
        return ""
    return "\n".join(
        ["The paper's claims, by mean IoU, and by that of the frequent classes where it differs:\n", *lines]
    )


def noise(study: Mapping[str, Any], facts: Facts) -> dict[str, float]:
    """The largest difference, in each score, between a row and its repetition with another seed."""
    pairs = [(row["again"], row["name"]) for row in study["row"] if {row.get("again"), row["name"]} <= facts.keys()]
    return {
        score: max((abs(value(facts[a]) - value(facts[b])) for a, b in pairs), default=0.0)
        for score, value in SCORES.items()
    }


SCORES = {
    "mean IoU": lambda found: 100 * found["mean_iou"],
    "frequent": lambda found: 100 * found["mean_iou_of_frequent_classes"]["mean_iou"],
}


def _verdict(claim: Mapping[str, Any], facts: Facts, noises: Mapping[str, float], trained: Mapping[str, str]) -> str:
    if "gain" in claim:
        return _gain(claim, facts)
    steps = [[group] if isinstance(group, str) else group for group in claim["order"]]
    compared = {name for step in steps for name in step}
    if not compared <= facts.keys():
        return ""
    if len({trained[name] for name in compared}) == 1:
        noises = dict.fromkeys(noises, 0.0)
    said = {}
    for score, value in SCORES.items():
        numbers = [[value(facts[name]) for name in step] for step in steps]
        least = min(b - a for low, high in pairwise(numbers) for a in low for b in high)
        mark = " < " if least > 0 else " ≮ "
        shown = mark.join(", ".join(f"{number:.2f}" for number in step) for step in numbers)
        if abs(least) <= noises[score]:
            said[score] = f"undecided ({shown}: less than another seed changes, {noises[score]:.2f})"
        else:
            said[score] = f"{'holds' if least > 0 else 'does not hold'} ({shown})"
    words = (
        said["mean IoU"]
        if said["mean IoU"] == said["frequent"]
        else f"{said['mean IoU']}; frequent: {said['frequent']}"
    )
    return f"- {claim['says']}: {words}."


def _gain(claim: Mapping[str, Any], facts: Facts) -> str:
    """How much one row is better than another, over all pixels and within bands along boundaries."""
    if not set(claim["gain"]) <= facts.keys():
        return ""
    before, after = (facts[name] for name in claim["gain"])
    gains = {"all pixels": 100 * (after["mean_iou"] - before["mean_iou"])}
    for a, b in zip(before["trimap"], after["trimap"], strict=True):
        gains[f"within {a['width']} px"] = 100 * (b["mean_iou"] - a["mean_iou"])
    overall, *bands = gains.values()
    shown = ", ".join(f"{where} {gain:+.2f}" for where, gain in gains.items())
    return f"- {claim['says']}: {'holds' if min(bands) > max(overall, 0) else 'does not hold'} ({shown})."
