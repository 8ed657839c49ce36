"""Learning rates as pure functions of the step: resuming needs no state."""

from __future__ import annotations


def poly(step: int, steps: int, power: float = 0.9, warmup: int = 0) -> float:
    """The factor on the base rate: ``(1 − step / steps) ^ power`` (arXiv 1606.00915, §4.1), after a linear warm-up.

    Args:
        step: from 0 to ``steps`` − 1.
        steps: length of the run.
        power: 0.9 in the DeepLab papers.
        warmup: steps of linear rise, multiplied onto the policy.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return float((1 - step / steps) ** power) * rise
