"""The parameters of the usual dense CRF: their search, and how a model stores them (DeepLab v1, §5; v2, §4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.pairwise import Bilateral, Gaussian, Kernel


@dataclass(frozen=True)
class Settings:
    """Parameters of the two usual kernels, normalised symmetrically.

    Args:
        weight: weight of the appearance kernel (w1 in DeepLab).
        sxy: standard deviation of its positions in pixels (σ_α).
        srgb: standard deviation of its colours, 0–255 (σ_β).
        smoothness: weight of the smoothness kernel (w2).
        smoothness_sxy: standard deviation of its positions in pixels (σ_γ).
        iterations: mean-field steps.
    """

    weight: float = 4
    sxy: float = 67
    srgb: float = 3
    smoothness: float = 3
    smoothness_sxy: float = 3
    iterations: int = 10

    def build(self) -> DenseCRF:
        """The CRF with these parameters."""
        kernels: list[Kernel] = [
            Gaussian(self.smoothness_sxy, self.smoothness),
            Bilateral(self.sxy, self.srgb, self.weight),
        ]
        return DenseCRF(kernels, self.iterations)

    def __str__(self) -> str:
        return (
            f"weight {self.weight:g}, sxy {self.sxy:g}, srgb {self.srgb:g}; smoothness {self.smoothness:g}, "
            f"sxy {self.smoothness_sxy:g}; {self.iterations} iterations"
        )


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


def changed(settings: Settings, changes: Mapping[str, float]) -> Settings:
    """The settings with some parameters changed, by name."""
    return Settings(**(asdict(settings) | dict(changes)))


def stored_settings(card: Mapping[str, Any]) -> Settings | None:
    """The settings that a model's card contains; None if its CRF has not been tuned."""
    stored = card.get("crf")
    return Settings(**{f.name: stored["settings"][f.name] for f in fields(Settings)}) if stored else None


def stored_crf(card: Mapping[str, Any]) -> DenseCRF:
    """The CRF that a model's card contains, or one with DeepLab v2's parameters."""
    return (stored_settings(card) or Settings()).build()


def to_card(settings: Settings, **facts: Any) -> dict[str, Any]:
    """The settings and further facts as a model's card stores them: JSON values."""
    return {"settings": asdict(settings), **facts}
