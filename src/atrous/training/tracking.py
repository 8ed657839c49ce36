"""What a run reports to experiment trackers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from atrous.files import write_atomically
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.sections import LogSection
from atrous.viz import Pixels, encode_jpeg


def check_trackers(options: LogSection) -> None:
    """Check that the recipe's trackers exist and are installed.

    Raises:
        RecipeError: one does not; the message lists those there are, or what to install.
    """
    there = {str(tracker) for tracker in get_available_trackers()}
    for name in options.trackers:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise RecipeError(f"log.trackers: unknown tracker '{name}'; there are: {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in there:
            raise RecipeError(f"log.trackers: {name} is not installed; pip install {name}")


def start_trackers(accelerator: Accelerator, recipe: Recipe, step: int) -> None:
    """Start every tracker of the recipe, or continue from a step."""
    if recipe.log.trackers:
        # What a killed run logged after its last state is logged again; TensorBoard must drop the first version.
        options = {"tensorboard": {"purge_step": step}} if "tensorboard" in recipe.log.trackers else {}
        accelerator.init_trackers(recipe.log.project, dict(_settings(recipe)), options)


def _settings(recipe: Recipe) -> Iterator[tuple[str, int | float | str]]:
    for section, values in recipe.model_dump(mode="json").items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{section}.{key}".strip(".")
            yield name, value if isinstance(value, (int, float, str)) else str(value)


def log_to_trackers(accelerator: Accelerator, step: int, values: dict[str, Any], prefix: str) -> None:
    """Log the numbers among some values to every tracker; a validation's classes one by one."""
    numbers = {
        f"{prefix}/{k.removeprefix('validation_')}": v
        for k, v in values.items()
        if isinstance(v, (int, float)) and k not in ("step", "time")
    }
    for entry in values.get("classes", ()):
        if entry["iou"] is not None:
            numbers[f"{prefix}/iou/{entry['name']}"] = entry["iou"]
    for name, metrics in values.get("heads", {}).items():
        if metrics["pixel_accuracy"] is not None:
            numbers[f"{prefix}/{name}/pixel_accuracy"] = metrics["pixel_accuracy"]
    accelerator.log(numbers, step=step)


def log_samples(accelerator: Accelerator, out: Path, step: int, sheet: Pixels) -> None:
    """Write a sheet of samples as ``OUT/samples/step-N.jpg``, and log it to the trackers that take images."""
    write_atomically(out / "samples" / f"step-{step:06}.jpg", encode_jpeg(sheet))
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": sheet[None]}, step=step, **form)
