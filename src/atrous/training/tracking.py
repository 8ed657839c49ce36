"""What a run tells of itself: trackers that people watch from elsewhere, and images of how it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from atrous.data.dataset import Dataset
from atrous.files import write_atomically
from atrous.inference.predictor import predict
from atrous.models.base import SegmentationModel
from atrous.training.recipe import LogSection, Recipe, RecipeError
from atrous.viz import Pixels, encode_jpeg, overlay

SHEET_WIDTH = 480
"""Width of an image on the sheet of samples, in pixels."""
GAP = 8


def check_trackers(options: LogSection) -> None:
    """Refuse trackers that nobody knows or that are not installed.

    Raises:
        RecipeError: with those that could be named, or with what to install.
    """
    there = {str(tracker) for tracker in get_available_trackers()}
    for name in options.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise RecipeError(f"log.trackers: nobody knows '{name}'; there are: {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in there:
            raise RecipeError(f"log.trackers: {name} is not installed; pip install {name}")


def start_trackers(accelerator: Accelerator, recipe: Recipe, step: int) -> None:
    """Begin, or go on from a step, in every tracker of the recipe."""
    if recipe.log.trackers:
        # What a killed run told beyond its last state is told again; TensorBoard must drop the first telling.
        options = {"tensorboard": {"purge_step": step}} if "tensorboard" in recipe.log.trackers else {}
        accelerator.init_trackers(recipe.log.project, dict(_settings(recipe)), options)


def _settings(recipe: Recipe) -> Iterator[tuple[str, int | float | str]]:
    for section, values in recipe.model_dump(mode="json").items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{section}.{key}".strip(".")
            yield name, value if isinstance(value, (int, float, str)) else str(value)


def tell_trackers(accelerator: Accelerator, step: int, values: dict[str, Any], prefix: str) -> None:
    """Hand the numbers among some values to every tracker; a validation's classes are told one by one."""
    numbers = {
        f"{prefix}/{k}": v for k, v in values.items() if isinstance(v, (int, float)) and k not in ("step", "time")
    }
    for entry in values.get("classes", ()):
        if entry["iou"] is not None:
            numbers[f"{prefix}/iou/{entry['name']}"] = entry["iou"]
    for name, scores in values.get("further", {}).items():
        numbers[f"{prefix}/{name}/pixel_accuracy"] = scores["pixel_accuracy"] or 0.0
    accelerator.log(numbers, step=step)


def show_samples(accelerator: Accelerator, out: Path, step: int, sheet: Pixels) -> None:
    """Keep a sheet of samples as ``OUT/samples/step-N.jpg``, and hand it to the trackers that take images."""
    write_atomically(out / "samples" / f"step-{step:06}.jpg", encode_jpeg(sheet))
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": sheet[None]}, step=step, **form)


def sample_sheet(model: SegmentationModel, dataset: Dataset, count: int) -> Pixels:
    """The first images of a dataset, one a row: as they should be labelled, and as the model labels them.

    Returns:
        RGB uint8 ``(H, W, 3)``.
    """
    rows = []
    for index in range(min(count, len(dataset))):
        sample = dataset[index]
        masks = sample.mask, predict(model, sample.image).labels
        pair = [_fitted(overlay(sample.shown, mask, dataset.label_set)) for mask in masks]
        height = max(len(image) for image in pair)
        rows.append(np.hstack([_filled(image, height + GAP) for image in pair]))
    return np.vstack(rows)


def _fitted(image: Pixels) -> Pixels:
    height = max(1, round(len(image) * SHEET_WIDTH / image.shape[1]))
    return np.asarray(cv2.resize(image, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def _filled(image: Pixels, height: int) -> Pixels:
    return np.pad(image, ((0, height - len(image)), (0, GAP), (0, 0)), constant_values=255)
