"""Training and evaluating the rows of a study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import torch
import typer

import atrous
from atrous.data.dataset import Dataset, subset
from atrous.data.loading import steps_per_epoch
from atrous.data.opening import open_dataset
from atrous.errors import InputError
from atrous.evaluation.sweep import COUNTED_AT, multiply_adds
from atrous.files import dumps, write_atomically
from atrous.models import SegmentationModel
from atrous.training.recipe import Recipe
from atrous.training.stages import train
from atrous.training.types import NonFiniteLossError, Progress
from studies.results import command_line, origin_of
from studies.study import Data, Row, Study, evaluation_file, read_log, recipe_for, recipe_of, run_folder

TIMINGS = 5
"""Forward passes that are timed; the fastest counts."""
LOG_EVERY = 50
"""Steps between two lines about a training."""


class Part(StrEnum):
    """What to do with a row."""

    all = "all"
    train = "train"
    evaluate = "evaluate"


def check(study: Study, data: Data, rows: Sequence[Row]) -> None:
    """Refuse rows whose network would not be trained.

    Raises:
        InputError: a run was begun with another recipe, or a row's network is missing.
    """
    for number, row in enumerate(rows):
        out = run_folder(study, data, row.name)
        if row.network:
            earlier = [other.name for other in rows[:number]]
            if row.network not in earlier and not (run_folder(study, data, row.network) / "last").exists():
                raise InputError(f"'{row.name}' evaluates the network of --row '{row.network}', not trained yet")
        elif (out / "run.json").exists() and (changes := recipe_of(out).differences(recipe_for(data, row))):
            raise InputError(
                f"{out} was trained with another recipe: {', '.join(changes)}; remove the folder to train it again, "
                "or use --table for the page of finished rows"
            )


def run(study: Study, data: Data, row: Row, part: Part) -> None:
    """Train a row, unless it is done or shares another row's network, and evaluate it; or only one of both."""
    if evaluation_file(study, data, row.name).exists():
        return
    typer.echo(f"{data.name}, {row.name}:")
    trained = run_folder(study, data, row.trained_as)
    if part != Part.evaluate and not row.network:
        try:
            train(recipe_for(data, row), trained, resume=(trained / "state").exists(), on_step=print_progress)
        except NonFiniteLossError as error:  # other rows continue; this one is not in the table
            typer.secho(f"{row.name} diverged: {error}", fg="red", err=True)
            return
    if not is_finished(trained):
        typer.secho(f"'{row.trained_as}' is not trained, or not to its end", fg="red", err=True)
    elif part != Part.train:
        evaluate_row(study, data, row)


def is_finished(run: Path) -> bool:
    """Whether a training reached its last step, here or elsewhere."""
    if not (run / "last").exists():
        return False
    recipe = recipe_of(run)
    images = len(open_dataset(recipe.data.train, recipe.data.train_split))
    steps = recipe.training.steps or round(recipe.training.epochs * steps_per_epoch(images, recipe.training.batch_size))
    return max(int(line["step"]) for line in read_log(run)) >= max(1, steps)


def print_progress(now: Progress) -> None:
    """Print every 50th step and the last."""
    if now.step % LOG_EVERY == 0 or now.step == now.steps:
        typer.echo(f"  step {now.step}/{now.steps}  loss {now.loss:.3f}  {now.images_per_second:.1f} images/s")


def load_network(study: Study, data: Data, row: Row) -> SegmentationModel:
    """The network of a row, with the row's attributes."""
    model: SegmentationModel = atrous.load(run_folder(study, data, row.trained_as) / "last")
    for name, value in row.attributes.items():
        if name not in model.settings:
            raise InputError(f"{model.name} has no {name}; what can be set of it: {', '.join(model.settings)}")
        setattr(model, name, value)
    return model


def evaluated_on(recipe: Recipe, row: Row | None = None) -> Dataset:
    """The validation split of a recipe, or as much of it as a row is evaluated on."""
    dataset = open_dataset(recipe.data.val or recipe.data.train, recipe.data.val_split)
    return subset(dataset, row.images) if row and row.images else dataset


def milliseconds(model: SegmentationModel) -> float:
    """The fastest of a few float32 forward passes from a 513 × 513 image to coarse logits."""
    channels = model.backbone.in_channels
    image = torch.zeros(1, channels, COUNTED_AT, COUNTED_AT).contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(TIMINGS):
            begin = time.perf_counter()
            model.coarse_logits(image)
            times.append(time.perf_counter() - begin)
    return 1000 * min(times)


def evaluate_row(study: Study, data: Data, row: Row) -> None:
    """Evaluate a row in float32 and keep its metrics and costs."""
    out = run_folder(study, data, row.trained_as)
    model, recipe = load_network(study, data, row), recipe_of(out)
    evaluation = atrous.evaluate(model, evaluated_on(recipe, row), trimap=study.trimap)
    times = [line["time"] for line in read_log(out)]
    facts = evaluation.to_dict() | {
        "multiply_adds": multiply_adds(model, model.backbone.in_channels),
        "milliseconds": milliseconds(model.eval()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": None if row.network else (times[-1] - times[0]) / 60,  # validations included
        "provenance": origin_of(command_line("studies"), seed=recipe.training.seed),
    }
    write_atomically(evaluation_file(study, data, row.name), (dumps(facts) + "\n").encode())
