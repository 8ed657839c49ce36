"""The parameters of the usual dense CRF, and how a model stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
