"""Stored evaluations: the JSON of ``atrous evaluate``, and the metrics in a run folder or a model's card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atrous.errors import InputError, kind_of
from atrous.evaluation.evaluate import Evaluation
from atrous.evaluation.per_image import PerImage
from atrous.files import refuse_newer
from atrous.provenance import provenance

FILE = "evaluation.json"
"""The facts in a report's folder."""
PLACES = (FILE, f"report/{FILE}", "best/config.json", "config.json")
"""Where a folder keeps an evaluation: a report's folder, a run folder with a report in it or without, a model."""
FORMAT = 1
"""Version of the stored facts; a name that changes or goes raises it."""
Interval = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ClassRow(_Part):
    """A class: in how many images it occurs, IoU and accuracy, 0 to 1; None if undefined."""

    name: str
    images: int = 0
    iou: float | None = None
    accuracy: float | None = None


class Frequent(_Part):
    """Mean IoU over the classes in at least some images."""

    min_images: int
    classes: list[str]
    mean_iou: float | None = None


class Band(_Part):
    """The pixels within ``width`` of a boundary."""

    width: int
    mean_iou: float | None = None
    pixel_accuracy: float | None = None


class Intervals(_Part):
    """Confidence intervals over images; None if undefined."""

    level: float
    draws: int
    mean_iou: Interval | None = None
    pixel_accuracy: Interval | None = None
    mean_accuracy: Interval | None = None
    frequency_weighted_iou: Interval | None = None
    boundary_iou: Interval | None = None
    classes: list[Interval | None]
    sizes: list[Interval | None]


class Boundary(_Part):
    """Boundary IoU, its mean and by class."""

    border: str
    mean_iou: float | None
    classes: list[float | None]


class SizeRow(_Part):
    """Objects of one size."""

    name: str
    below: int | None
    objects: int
    iou: float | None
    recall: float | None


class ObjectRow(_Part):
    """Objects of one class."""

    name: str
    objects: int
    recall: float | None
    predicted: int
    precision: float | None


class Objects(_Part):
    """How many objects are found, and how many predicted regions are right."""

    recall: float | None
    precision: float | None
    sizes: list[SizeRow]
    classes: list[ObjectRow]


class Bin(_Part):
    """Pixels of similar confidence."""

    pixels: int
    confidence: float | None
    accuracy: float | None


class Reliability(_Part):
    """Calibration."""

    expected_error: float | None
    bins: list[Bin]


class StoredDetails(_Part):
    """What :class:`atrous.evaluation.details.Details` wrote."""

    intervals: Intervals
    boundary_iou: Boundary
    objects: Objects
    calibration: Reliability
    per_image: dict[str, Any]


class StoredEvaluation(_Part):
    """An evaluation that was read or is about to be written; what was not stored is empty.

    ``title`` says which it is among several, ``card``, ``recipe`` and ``provenance`` are those of the model.
    """

    title: str = ""
    model: str = "model"
    data: str = "unnamed data"
    images: int = 0
    seconds: float | None = None
    precision: str = ""
    device: str = ""
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    mean_iou: float | None = None
    frequency_weighted_iou: float | None = None
    mean_iou_of_frequent_classes: Frequent | None = None
    classes: list[ClassRow] = Field(default_factory=list)
    trimap: list[Band] = Field(default_factory=list)
    confusion: list[list[int]] = Field(default_factory=list)
    details: StoredDetails | None = None
    card: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    def per_image(self) -> PerImage:
        """The counts of each image.

        Raises:
            InputError: they were not stored, or are damaged.
        """
        if self.details is None:
            raise InputError(
                f"{self.title} holds no counts of single images, which intervals of a difference need: write it with "
                "`atrous evaluate --json FILE` or `--report DIR`"
            )
        try:
            return PerImage.from_dict(self.details.per_image, len(self.classes))
        except InputError as error:
            raise InputError(f"{self.title}: {error}") from error


def to_facts(evaluation: Evaluation, card: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The facts that are stored: the evaluation, the model's card, and where they come from, as JSON values."""
    kept = {key: value for key, value in card.items() if key != "output_stride"}
    return {"format": FORMAT, "title": title, **evaluation.to_dict(), "card": kept, "provenance": provenance()}


def read_evaluation(place: str | Path) -> StoredEvaluation:
    """Read a stored evaluation.

    Args:
        place: the JSON file of ``atrous evaluate --json``, the folder of a report, a run folder, or a model folder.

    Raises:
        InputError: there is none, or it is damaged; the message says what was looked for.
    """
    place = Path(place)
    file = place
    if place.is_dir():
        file = next((place / name for name in PLACES if (place / name).is_file()), place)
        if file == place:
            raise InputError(
                f"{place} holds no evaluation; looked for {', '.join(PLACES)} (`atrous evaluate --report`)"
            )
    elif not place.is_file():
        raise InputError(
            f"no evaluation '{place}': it is neither a JSON file of `atrous evaluate --json` nor a folder with one"
        )
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    return parse_evaluation(_metrics(facts, file), str(place), file)


def _metrics(facts: Any, file: Path) -> dict[str, Any]:
    """The evaluation in a file, which in a model's config.json is part of its card."""
    if not isinstance(facts, dict):
        raise InputError(f"{file} holds {kind_of(facts)}, expected the object that `atrous evaluate` writes")
    if "points" in facts:
        raise InputError(f"{file} is a sweep of several evaluations; evaluate with one setting instead")
    if file.name != "config.json":
        return facts
    metrics = facts.get("metrics")
    if not isinstance(metrics, dict) or "mean_iou" not in metrics:
        raise InputError(f"{file}: the model's card holds no metrics; run `atrous evaluate --report` with it")
    return {"model": facts.get("architecture", "model"), **metrics, "card": {**facts, "metrics": {}}}


def parse_evaluation(facts: Mapping[str, Any], title: str, source: Path | str) -> StoredEvaluation:
    """Check facts, whose own title is kept.

    Raises:
        InputError: a part is missing or of another type; the message names the first.
    """
    refuse_newer(facts.get("format"), FORMAT, source, InputError)
    try:
        found = StoredEvaluation.model_validate({"title": title, **facts})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{source} is not an evaluation: {where}: {first['msg']}") from error
    names, count = [row.name for row in found.classes], len(found.classes)
    details = found.details
    lengths = {len(row) for row in found.confusion} | {len(found.confusion)} - {0}
    if details:
        lengths |= {len(details.intervals.classes), len(details.boundary_iou.classes)}
    if found.mean_iou is None and not names:
        raise InputError(f"{source} is not an evaluation: it holds neither classes nor a mean IoU")
    if (lengths - {count}) or len(set(names)) != count:
        raise InputError(f"{source} is damaged: {count} classes do not fit its other tables")
    return found
