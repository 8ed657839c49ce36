"""Train what is bundled and judged, each from its recipe, in order of importance, within a number of minutes (``make
zoo``).

    python -m studies.zoo --minutes 120             everything, as far as the time reaches
    python -m studies.zoo --bundle RUN --name NAME  only judge and bundle a finished run

An entry that would not end in its share of the time is trained for fewer epochs; the card says how many. A finished
run is judged in float32 at native size, its table goes to results/, and a bundled model to src/atrous/zoo as float16.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import atrous
from atrous.data.dataset import open_dataset
from atrous.evaluation.evaluate import Evaluation
from atrous.evaluation.report import markdown
from atrous.training.recipe import Recipe
from atrous.training.recipe_file import load_recipe
from atrous.training.stages import train
from atrous.training.types import Progress

ROOT = Path(__file__).resolve().parents[1]
STORED = "Weights are stored as float16; the table is of the stored weights."
TRIAL_STEPS = 12
"""Steps that measure this machine's speed; the first few, slower ones don't count."""


def main(
    minutes: Annotated[float, typer.Option(help="Time for everything.")] = 120,
    only: Annotated[str | None, typer.Option(help="Only this entry.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A finished run to judge and bundle; nothing is trained.")] = None,
    name: Annotated[str | None, typer.Option(help="Which entry the finished run is.")] = None,
) -> None:
    """Train the entries of studies/zoo.toml one after the other, or bundle one that is done."""
    entries = tomllib.loads((ROOT / "studies" / "zoo.toml").read_text(encoding="utf-8"))["entry"]
    if bundle:
        finish(next(e for e in entries if e["name"] == name), bundle)
        return
    end = time.monotonic() + 60 * minutes
    for entry in entries:
        if only in (None, entry["name"]):
            out = ROOT / "runs" / "zoo" / entry["name"]
            run(entry, out, end)
            finish(entry, out)


def run(entry: dict[str, Any], out: Path, end: float) -> None:
    """Train an entry, for as many epochs as its share of the time allows."""
    settings = entry["gpu"] if torch.cuda.is_available() else []
    path = ROOT / "recipes" / entry["recipe"]
    recipe = load_recipe(path, settings)
    if not (out / "state").exists():
        seconds = (end - time.monotonic()) * entry["share"] - judging_seconds(recipe)
        affordable = (
            seconds * images_per_second(path, settings) / len(open_dataset(recipe.data.train, recipe.data.train_split))
        )
        epochs = min(recipe.training.epochs, max(0.1, math.floor(10 * affordable) / 10))
        recipe = load_recipe(path, [*settings, f"training.epochs={epochs}"])
        typer.echo(f"{entry['name']}: {epochs:g} epochs")
    else:  # a run that was cut off goes on as it was begun
        recipe = Recipe.model_validate(json.loads((out / "state" / "state.json").read_text(encoding="utf-8"))["recipe"])
    train(recipe, out, resume=(out / "state").exists(), on_step=tell)


def judging_seconds(recipe: Recipe) -> float:
    """Room for judging the result, twice: about an image in half a second on a small CPU."""
    images = len(open_dataset(recipe.data.val or recipe.data.train, str(recipe.data.val_split)))
    return images * (0.05 if torch.cuda.is_available() else 1.0)


def images_per_second(path: Path, settings: list[str]) -> float:
    """The speed of a few training steps, data loading included."""
    times: list[float] = []
    trial = load_recipe(path, [*settings, "data.val_split=none"])
    per_epoch = len(open_dataset(trial.data.train, trial.data.train_split)) // trial.training.batch_size
    trial = load_recipe(path, [*settings, "data.val_split=none", f"training.epochs={TRIAL_STEPS / per_epoch}"])
    with tempfile.TemporaryDirectory() as room:
        train(trial, Path(room) / "trial", on_step=lambda _: times.append(time.perf_counter()))
    return trial.training.batch_size * (len(times) - 4) / (times[-1] - times[3])


def tell(now: Progress) -> None:
    """A line every fifty steps."""
    if now.step % 50 == 0 or now.step == now.steps:
        typer.echo(f"  step {now.step}/{now.steps}  loss {now.loss:.3f}  {now.images_per_second:.1f} images/s")


def finish(entry: dict[str, Any], out: Path) -> None:
    """Judge a run's best model in float32, write its table, and bundle it where the entry says so."""
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(facts["recipe"])
    model = atrous.load(out / "best")
    if entry["bundle"]:  # what is judged is what is shipped
        model = atrous.load(model.save(out / "bundle", dtype=torch.float16))
    dataset = open_dataset(recipe.data.val or recipe.data.train, str(recipe.data.val_split))
    evaluation = atrous.evaluate(model, dataset)
    folder = ROOT / "src" / "atrous" / "zoo" / entry["name"]
    if entry["bundle"] and (old := bundled_score(folder)) > (new := score(evaluation.to_dict())):
        typer.echo(
            f"{entry['name']}: what is bundled is better ({100 * old:.2f} % mean IoU, new {100 * new:.2f} %): kept"
        )
        return
    seconds = training_seconds(out)
    text = card(entry, recipe, facts, evaluation, seconds)
    results = ROOT / "results" / f"{entry['name']}.md"
    results.parent.mkdir(exist_ok=True)
    results.write_text(text, encoding="utf-8")
    if entry["bundle"]:
        scores = evaluation.to_dict()
        model.card = {
            "description": recipe.description,
            "training_data": entry["data"],
            "metrics": {
                k: scores[k]
                for k in (
                    "data",
                    "images",
                    "pixel_accuracy",
                    "mean_accuracy",
                    "mean_iou",
                    "mean_iou_of_frequent_classes",
                )
            },
            "recipe": facts["recipe"],
            "provenance": {k: facts[k] for k in ("commit", "hardware", "versions", "command")}
            | {"training_seconds": round(seconds)},
        }
        model.save(folder, dtype=torch.float16)
        (folder / "README.md").write_text(text, encoding="utf-8")
    typer.echo(text)


def score(metrics: dict[str, Any]) -> float:
    """What decides between two models: mean IoU over the classes in enough images to say something."""
    return float(metrics["mean_iou_of_frequent_classes"]["mean_iou"] or 0)


def bundled_score(folder: Path) -> float:
    """The score of the model that is bundled now; -1 if none is."""
    card = folder / "config.json"
    return score(json.loads(card.read_text(encoding="utf-8"))["metrics"]) if card.exists() else -1.0


def training_seconds(out: Path) -> float:
    """Wall-clock time of a run by its log, validations included."""
    times = [json.loads(line)["time"] for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(times[-1] - times[0])


def card(entry: dict[str, Any], recipe: Recipe, facts: dict[str, Any], evaluation: Evaluation, seconds: float) -> str:
    """The model card: what it is, what it learned from, how well it does, and how to make it again."""
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    training = recipe.training
    return f"""# {entry["name"]}

{recipe.description}. Generated by `python -m studies.zoo`; do not edit.

- Training data: {entry["data"]}.
- Trained for {training.epochs:g} epochs, batch {training.batch_size}, crop {recipe.augment.crop}, seed {training.seed}.
- Took {seconds / 60:.0f} minutes, on a machine that did other work beside it where that is a small one.
- Hardware: {facts["hardware"]}. Software: {versions}.
- Commit {facts["commit"]}; recipe `recipes/{entry["recipe"]}`; again: `python -m studies.zoo --only {entry["name"]}`.

{markdown(evaluation)}
{STORED if entry["bundle"] else "The weights are not bundled."}
Meant for: trying the package, and as a start for training on images of the same kind. Not meant for decisions about
people: it knows only the classes above, from few images, and mistakes what it has not seen for what it has.
"""


if __name__ == "__main__":
    typer.run(main)
