"""A paper's claims, checked against the rows of a study: each claim with its figures and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import isnan, nan
from typing import Any

from studies.study import Claim, Study

Facts = Mapping[str, Mapping[str, Any]]
"""Facts of rows by the row's name."""
MEANS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "mean IoU": lambda found: _percent(found["mean_iou"]),
    "frequent": lambda found: _percent(found["mean_iou_of_frequent_classes"]["mean_iou"]),
}
"""Means that claims are checked by, in percent."""


def verdicts(study: Study, facts: Facts) -> str:
    """A list of the study's claims whose rows are all there.

    A difference within the largest one between seeds decides nothing, except between settings of one trained network.
    """
    noise = seed_noise(study, facts)
    claims = [claim for claim in study.claims if claim.compared <= facts.keys()]
    lines = [_gain(claim, facts) if claim.gain else _order(study, claim, facts, noise) for claim in claims]
    if not lines:
        return ""
    return "\n".join(["The paper's claims, by mean IoU, and by that of frequent classes where it differs:\n", *lines])


def seed_noise(study: Study, facts: Facts) -> dict[str, float]:
    """For each mean, the largest difference between a row and its repetition with another seed."""
    pairs = [(row.repeats, row.name) for row in study.rows if row.repeats and {row.repeats, row.name} <= facts.keys()]
    return {
        mean: max((abs(value(facts[a]) - value(facts[b])) for a, b in pairs), default=0.0)
        for mean, value in MEANS.items()
    }


def _order(study: Study, claim: Claim, facts: Facts, noise: Mapping[str, float]) -> str:
    """Whether rows are in the claimed order."""
    trained_as = {row.name: row.trained_as for row in study.rows}
    same_network = len({trained_as[name] for name in claim.compared}) == 1
    verdict = {}
    for mean, value in MEANS.items():
        steps = [[value(facts[name]) for name in step] for step in claim.groups]
        verdict[mean] = _compare(steps, 0.0 if same_network else noise[mean])
    same = verdict["frequent"] in ("", verdict["mean IoU"])
    frequent = "" if same else f"; frequent: {verdict['frequent']}"
    return f"- {claim.statement}: {verdict['mean IoU']}{frequent}."


def _compare(steps: list[list[float]], noise: float) -> str:
    """Whether every number of a step is below every number of the next; empty if one is undefined."""
    if any(isnan(number) for step in steps for number in step):
        return ""
    least = min(b - a for low, high in pairwise(steps) for a in low for b in high)
    figures = (" < " if least > 0 else " ≮ ").join(", ".join(f"{number:.2f}" for number in step) for step in steps)
    if abs(least) <= noise:
        return f"undecided ({figures}: within the difference between seeds, {noise:.2f})"
    return f"{'holds' if least > 0 else 'does not hold'} ({figures})"


def _percent(share: float | None) -> float:
    """A share in percent; NaN where it is not defined."""
    return nan if share is None else 100 * float(share)


def _gain(claim: Claim, facts: Facts) -> str:
    """How much better one row is than another, over all pixels and within bands along boundaries."""
    before, after = (facts[name] for name in claim.gain or ())
    gains = {"all pixels": 100 * (after["mean_iou"] - before["mean_iou"])}
    for a, b in zip(before["trimap"], after["trimap"], strict=True):
        gains[f"within {a['width']} px"] = 100 * (b["mean_iou"] - a["mean_iou"])
    overall, *bands = gains.values()
    figures = ", ".join(f"{where} {gain:+.2f}" for where, gain in gains.items())
    return f"- {claim.statement}: {'holds' if min(bands) > max(overall, 0) else 'does not hold'} ({figures})."
