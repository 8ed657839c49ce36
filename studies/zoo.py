"""Train and evaluate the models of studies/zoo.toml from their recipes, within a time budget (``make zoo``).

    python -m studies.zoo --minutes 120             everything, as far as the time reaches
    python -m studies.zoo --bundle RUN --name NAME  only evaluate and bundle a finished run

An entry that would not finish within its share of the time is trained for fewer epochs; its card says how many. A
finished run is evaluated in float32 at native size, on the split that its recipe validates on and on those that the
entry names besides, its tables written to results/, and a bundled model to src/atrous/zoo as float16, if its mean IoU
on the first split is higher than that of the model that is bundled now.
"""

from __future__ import annotations

import math
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import BaseModel

import atrous
from atrous.data.opening import open_dataset
from atrous.evaluation.evaluate import Evaluation
from atrous.evaluation.report import markdown
from atrous.models import SegmentationModel
from atrous.training.recipe import Recipe
from atrous.training.recipe_file import load_recipe
from atrous.training.stages import train
from studies.results import RESULTS, ROOT, Result, Section, origin_of
from studies.rows import evaluated_on, print_progress
from studies.study import RECIPES, read_json, read_log

STORED = "Weights are stored as float16; the table is of the stored weights."
PURPOSE = """Meant for: trying the package, and as a start for training on similar images. Not meant for decisions about
people: it knows only the classes above, from few images, and mistakes what it has not seen for what it has."""
CARD_METRICS = ("data", "images", "pixel_accuracy", "mean_accuracy", "mean_iou", "mean_iou_of_frequent_classes")
TRIAL_STEPS = 12
"""Steps that measure this machine's speed; the first few, slower ones don't count."""
WARM_UP = 3
"""How many of them don't count."""


class Entry(BaseModel):
    """An entry of studies/zoo.toml."""

    name: str
    recipe: str
    bundle: bool
    """Whether the model is shipped with the package."""
    share: float
    """Largest part of the remaining time."""
    gpu: list[str]
    """Settings on a GPU."""
    data: str
    """The training data and its terms, for the card."""
    also: list[str] = []
    """Further splits of the validation data to evaluate on."""
    history: str = ""
    """What the weights had learned before the run, where it started from a model of ours."""

    @property
    def settings(self) -> list[str]:
        """Settings on this machine."""
        return self.gpu if torch.cuda.is_available() else []

    @property
    def folder(self) -> Path:
        """The folder of the bundled model."""
        return ROOT / "src" / "atrous" / "zoo" / self.name


def main(
    minutes: Annotated[float, typer.Option(help="Time for everything.")] = 120,
    only: Annotated[str | None, typer.Option(help="Only this entry.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A finished run to evaluate and bundle; nothing is trained.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The entry of the finished run.")] = None,
) -> None:
    """Train the entries of studies/zoo.toml one after the other, or bundle one that is done."""
    entries = load_entries()
    if bundle:
        finish(next(entry for entry in entries if entry.name == name), bundle)
        return
    end = time.monotonic() + 60 * minutes
    for entry in entries:
        if only in (None, entry.name):
            out = ROOT / "runs" / "zoo" / entry.name
            run(entry, out, end)
            finish(entry, out)


def load_entries() -> list[Entry]:
    """The entries of studies/zoo.toml."""
    tables = tomllib.loads((ROOT / "studies" / "zoo.toml").read_text(encoding="utf-8"))["entry"]
    return [Entry.model_validate(table) for table in tables]


def run(entry: Entry, out: Path, end: float) -> None:
    """Train an entry for as many epochs as its share of the time allows, or continue an interrupted run."""
    interrupted = (out / "state").exists()
    recipe = begun_recipe(out) if interrupted else affordable_recipe(entry, end)
    train(recipe, out, resume=interrupted, on_step=print_progress)


def begun_recipe(out: Path) -> Recipe:
    """The recipe of an interrupted run."""
    return Recipe.model_validate(read_json(out / "state" / "state.json")["recipe"])


def affordable_recipe(entry: Entry, end: float) -> Recipe:
    """The recipe of an entry with as many epochs as its share of the time allows."""
    path = RECIPES / entry.recipe
    recipe = load_recipe(path, entry.settings)
    seconds = (end - time.monotonic()) * entry.share - evaluation_seconds(recipe)
    images = len(open_dataset(recipe.data.train, recipe.data.train_split))
    affordable = seconds * images_per_second(path, entry.settings) / images
    epochs = min(recipe.training.epochs, max(0.1, math.floor(10 * affordable) / 10))
    typer.echo(f"{entry.name}: {epochs:g} epochs")
    return load_recipe(path, [*entry.settings, f"training.epochs={epochs}"])


def evaluation_seconds(recipe: Recipe) -> float:
    """Time to evaluate the result twice: about half a second per image on a small CPU."""
    return len(evaluated_on(recipe)) * (0.05 if torch.cuda.is_available() else 1.0)


def images_per_second(path: Path, settings: list[str]) -> float:
    """The speed of a few training steps, data loading included."""
    times: list[float] = []
    trial = load_recipe(path, [*settings, "data.val_split=none"])
    per_epoch = len(open_dataset(trial.data.train, trial.data.train_split)) // trial.training.batch_size
    trial = load_recipe(path, [*settings, "data.val_split=none", f"training.epochs={TRIAL_STEPS / per_epoch}"])
    with tempfile.TemporaryDirectory() as room:
        train(trial, Path(room) / "trial", on_step=lambda _: times.append(time.perf_counter()))
    return trial.training.batch_size * (len(times) - 1 - WARM_UP) / (times[-1] - times[WARM_UP])


def finish(entry: Entry, out: Path) -> None:
    """Evaluate a run's best model in float32, write its table, and bundle it where the entry says so."""
    run_facts = read_json(out / "run.json")
    recipe = Recipe.model_validate(run_facts["recipe"])
    model = atrous.load(out / "best")
    if entry.bundle:  # what is evaluated is what is shipped
        model = atrous.load(model.save(out / "bundle", dtype=torch.float16))
    chosen_on = evaluated_on(recipe)
    evaluations = [atrous.evaluate(model, chosen_on)]
    if entry.bundle and (entry.folder / "config.json").exists():
        old = atrous.evaluate(atrous.load(entry.folder), chosen_on).metrics.mean_iou
        new = evaluations[0].metrics.mean_iou
        typer.echo(f"{entry.name}: mean IoU {100 * old:.2f} % of the bundled model, {100 * new:.2f} % of the new one")
        if old > new:
            typer.echo("the bundled model is kept")
            return
    spec = recipe.data.val or recipe.data.train
    evaluations += [atrous.evaluate(model, open_dataset(spec, split)) for split in entry.also]
    seconds = training_seconds(out)
    page = card_page(entry, recipe, run_facts, evaluations, seconds)
    page.write(RESULTS / entry.name)
    if entry.bundle:
        bundle_model(entry, model, run_facts, evaluations, seconds)
        (entry.folder / "README.md").write_text(page.markdown(), encoding="utf-8")
    typer.echo(page.markdown())


def bundle_model(
    entry: Entry, model: SegmentationModel, run_facts: dict[str, Any], evaluations: list[Evaluation], seconds: float
) -> None:
    """Write a model and its card to the package."""
    metrics, *also = [{key: e.to_dict()[key] for key in CARD_METRICS} for e in evaluations]
    origin = {key: run_facts[key] for key in ("commit", "hardware", "versions", "command")}
    model.card = {
        "description": run_facts["recipe"]["description"],
        "training_data": entry.data,
        "metrics": metrics,
        "further_metrics": also,
        "recipe": run_facts["recipe"],
        "provenance": origin | {"training_seconds": round(seconds)},
    }
    model.save(entry.folder, dtype=torch.float16)


def training_seconds(out: Path) -> float:
    """Wall-clock time of a run by its log, validations included."""
    times = [line["time"] for line in read_log(out)]
    return float(times[-1] - times[0])


def card_page(
    entry: Entry, recipe: Recipe, run_facts: dict[str, Any], evaluations: list[Evaluation], seconds: float
) -> Result:
    """The model card: what it is, what it was trained on, how good it is, and how to train it again."""
    training, command = recipe.training, f"python -m studies.zoo --only {entry.name}"
    length = f"{training.steps} steps" if training.steps else f"{training.epochs:g} epochs"
    versions = ", ".join(f"{package} {version}" for package, version in run_facts["versions"].items())
    notes = [
        f"{recipe.description}.",
        f"Training data: {entry.data}.",
        f"Trained for {length}, batch {training.batch_size}, crop {recipe.augment.crop}, "
        f"seed {training.seed}, in {seconds / 60:.0f} minutes (a small machine did other work meanwhile).",
        f"Trained on {run_facts['hardware']} with {versions}.",
        f"Commit {run_facts['commit']}; recipe `recipes/{entry.recipe}`.",
    ]
    if recipe.distillation.teacher:
        notes.insert(3, f"{100 * recipe.distillation.share:.0f} % of the loss is a teacher's (see the recipe).")
    if entry.history and recipe.model.start_from:
        notes.insert(3, f"Before this run: {entry.history}.")
    text = "\n".join([*map(markdown, evaluations), ""])
    text = f"{text}\n{STORED if entry.bundle else 'The weights are not bundled.'}\n{PURPOSE}"
    facts = {"training": run_facts, "training_seconds": seconds, "evaluations": [e.to_dict() for e in evaluations]}
    section = Section(text=text, facts=facts, origin=origin_of(command, seed=training.seed))
    return Result(entry.name, command, notes, {"": section})


if __name__ == "__main__":
    typer.run(main)
