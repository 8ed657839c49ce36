"""Search for the parameters of a dense CRF (DeepLab v1, arXiv 1412.7062, §5; v2, arXiv 1606.00915, §4.1)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from atrous.crf.settings import Settings, changed

COARSE = {"weight": (1.0, 3.0, 6.0), "sxy": (20.0, 50.0, 100.0), "srgb": (3.0, 6.0, 12.0)}
"""The coarse grid: the papers' ranges (w1 3–10, σ_α 30–100, σ_β 3–13), and weaker settings for networks that need
little refinement."""
FINER = (1.4, 1.2)
"""Factors of the finer rounds: each parameter of the best settings so far is multiplied and divided by it."""


def search(score: Callable[[Settings], float], start: Settings | None = None) -> tuple[Settings, dict[Settings, float]]:
    """Search the parameters of the appearance kernel, coarse to fine (DeepLab v2, §4.1.1).

    Args:
        score: evaluates settings, higher is better; called once for each.
        start: the other parameters, which stay.

    Returns:
        The best settings (the first among equals), and the scores of all settings that were tried, in order.
    """
    start = start or Settings()
    tried: dict[Settings, float] = {}

    def best() -> Settings:
        return max(tried, key=tried.__getitem__)

    def attempt(settings: Settings) -> None:
        if settings not in tried:
            tried[settings] = score(settings)

    for values in product(*COARSE.values()):
        attempt(changed(start, dict(zip(COARSE, values, strict=True))))
    for factor in FINER:
        for name in COARSE:
            middle = best()
            for value in (getattr(middle, name) / factor, getattr(middle, name) * factor):
                attempt(changed(middle, {name: float(f"{value:.3g}")}))
    return best(), tried
