"""The models that come with the package."""

from __future__ import annotations

from pathlib import Path

BUNDLE = Path(__file__).resolve().parent / "zoo"
DEFAULT = "deeplabv3plus_lite0_voc"
"""The bundled model that the demo and ``predict`` take when none is named."""


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in BUNDLE.glob("*/config.json"))
