"""The files of the page, and what it is told of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atrous.serve.answers import known_classes
from atrous.serve.served import ServedModel

PAGE = Path(__file__).parent / "page"
ALONE = PAGE / "alone"
"""Files that take the place of others, or join them, where there is no server."""
REPORTS = PAGE.parents[1] / "evaluation" / "page" / "templates"
SHARED = ("theme.css", "theme.js")
"""Files that the page has in common with reports."""


def page_files() -> list[Path]:
    """The files that are sent as they are."""
    return [*sorted(file for file in PAGE.iterdir() if file.is_file()), *(REPORTS / name for name in SHARED)]


def describe_model(served: ServedModel) -> dict[str, Any]:
    """What ``/models`` says about a model."""
    crf = served.card.get("crf")
    return {
        "name": served.name,
        "architecture": served.model.name,
        "runtime": served.runtime,
        "description": served.card.get("description", ""),
        "classes": [known.model_dump() for known in known_classes(served)],
        "output_stride": served.model.output_stride,
        "output_strides": served.strides,
        "probabilities": served.has_probabilities,
        "attention": served.attends,
        "crf": crf["settings"] if crf else None,
    }
