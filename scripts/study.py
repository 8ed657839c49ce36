"""Train and judge the rows of a study, one after the other, and write its table: a paper's ablation from one command.

    python scripts/study.py fcn_skips                  everything that is not done yet, then the table
    python scripts/study.py fcn_skips --data CamVid    only on some data
    python scripts/study.py fcn_skips --table          only the table, of what is done
    python scripts/study.py fcn_skips --part train     only train: copy runs/studies to where they are judged with
                                                       --part judge

A study is a file in recipes/studies: data (a recipe each, and what is set for a CPU or a GPU) times rows (what is `set`
otherwise, and more on a `gpu`; or the trained network `of` a row above with a `change` of its attributes), some the
same `again` with another seed; and the paper's claims (rows in the order from worse to better, or the gain of one over
another along boundaries). A run that was cut off goes on; one that is done is not trained again. The result stands in
results/studies, as a page and as JSON; the runs, and images of the rows side by side, in runs/studies.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from PIL import Image
from study_page import ROOT, Table, base_folder, recipe_of, run_folder, write

import atrous
from atrous.data.dataset import PairedDataset, open_dataset
from atrous.data.files.images import open_image
from atrous.data.loading import steps_per_epoch
from atrous.evaluation.sweep import COUNTED_AT, multiply_adds
from atrous.files import write_atomically
from atrous.inference.demo import find_demo_images
from atrous.inference.predictor import predict
from atrous.provenance import provenance
from atrous.training.recipe import Recipe
from atrous.training.recipe_file import load_recipe
from atrous.training.stages import train
from atrous.training.types import NonFiniteLossError, Progress
from atrous.viz import encode_jpeg, overlay

STUDIES = ROOT / "recipes" / "studies"
IMAGES = 6
"""How many images are shown with what each row made of them."""
WIDTH = 320
"""Of the sample images, in pixels."""
TRIES = 5
"""Of a time that is taken."""
EVERY = 50
"""Steps between two lines about a training."""


class Part(StrEnum):
    """What is done with a row."""

    all = "all"
    train = "train"
    judge = "judge"


def main(
    name: Annotated[str, typer.Argument(help="A file of recipes/studies, without .toml.")],
    data: Annotated[list[str] | None, typer.Option(help="Only on these data.")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", help="Only these rows.")] = None,
    part: Annotated[
        Part, typer.Option(help="Only train, for runs that are judged elsewhere, or only judge what is trained.")
    ] = Part.all,
    table: Annotated[bool, typer.Option("--table", help="Train nothing; write the table of what is done.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Show what each row makes of sample images of installed packages, too.")
    ] = False,
) -> None:
    """Run a study and write its table."""
    file = STUDIES / f"{name}.toml"
    if not file.exists():
        raise typer.BadParameter(f"no study {name}; there are: {', '.join(sorted(p.stem for p in STUDIES.glob('*')))}")
    study = tomllib.loads(file.read_text(encoding="utf-8"))
    chosen = some(study["data"], data, "--data")
    wanted = some(study["row"], rows, "--row")
    if not table:
        for where in chosen if part != Part.judge else []:
            check(name, where, wanted)
        for where in chosen:
            for row in wanted:
                run(name, where, row, study.get("trimap", ()), part)
    if part == Part.train:
        return
    text = write(name, study)
    for where in chosen:
        strip(name, where, study)
        if images:
            samples(name, where, study)
    typer.echo(text)


def some(tables: Sequence[Table], names: Sequence[str] | None, option: str) -> list[Table]:
    """The tables of these names, or all."""
    there = [table["name"] for table in tables]
    if unknown := [name for name in names or () if name not in there]:
        raise typer.BadParameter(f"{option}: no {', '.join(unknown)}; there are: {', '.join(there)}")
    return [table for table in tables if table["name"] in (names or there)]


def recipe_for(where: Table, row: Table) -> Recipe:
    """What a row is trained by on this machine."""
    here = torch.cuda.is_available()
    settings = [*where["gpu" if here else "set"], *row.get("set", []), *(row.get("gpu", []) if here else [])]
    return load_recipe(ROOT / "recipes" / where["recipe"], settings)


def check(study: str, where: Table, rows: Sequence[Table]) -> None:
    """Refuse runs that were begun with another recipe, and rows of networks that would not be there."""
    for row in rows:
        out = run_folder(study, where, row["name"])
        if "of" in row:
            above = [other["name"] for other in rows[: rows.index(row)]]
            trained = row["of"] in above or (base_folder(study, where, row) / "last").exists()
            if not trained:
                raise typer.BadParameter(
                    f"'{row['name']}' is about the network of --row '{row['of']}', not trained yet"
                )
        elif (out / "run.json").exists() and (changes := recipe_of(out).differences(recipe_for(where, row))):
            raise typer.BadParameter(
                f"{out} was trained by another recipe: {', '.join(changes)}; remove the folder to train it again, or "
                "take --table for the page of what is there"
            )


def run(study: str, where: Table, row: Table, trimap: Sequence[int], part: Part) -> None:
    """Train a row, unless it is done or of another one, and judge it in float32; or only one of both."""
    out = run_folder(study, where, row["name"])
    if (out / "judged.json").exists():
        return
    typer.echo(f"{where['name']}, {row['name']}:")
    if part != Part.judge and "of" not in row:
        try:
            train(recipe_for(where, row), out, resume=(out / "state").exists(), on_step=tell)
        except NonFiniteLossError as error:  # the other rows go on; this one is not in the table
            typer.secho(f"{row['name']} diverged: {error}", fg="red", err=True)
            return
    if not finished(base_folder(study, where, row)):
        typer.secho(f"'{row.get('of', row['name'])}' is not trained, or not to its end", fg="red", err=True)
    elif part != Part.train:
        judge(study, where, row, trimap)


def finished(run: Path) -> bool:
    """Whether a training has come to its end, here or elsewhere."""
    if not (run / "last").exists():
        return False
    recipe = recipe_of(run)
    images = len(open_dataset(recipe.data.train, recipe.data.train_split))
    steps = recipe.training.steps or round(recipe.training.epochs * steps_per_epoch(images, recipe.training.batch_size))
    log = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return max(int(json.loads(line)["step"]) for line in log) >= max(1, steps)


def tell(now: Progress) -> None:
    """A line now and then."""
    if now.step % EVERY == 0 or now.step == now.steps:
        typer.echo(f"  step {now.step}/{now.steps}  loss {now.loss:.3f}  {now.images_per_second:.1f} images/s")


def network(study: str, where: Table, row: Table) -> atrous.models.SegmentationModel:
    """What a run ended with, as the row has it."""
    model = atrous.load(base_folder(study, where, row) / "last")
    for name, value in row.get("change", {}).items():
        model.turn(name, value)
    return model


def judged_on(recipe: Recipe, row: Table) -> PairedDataset:
    """The images that a row is judged on: all of the split, or as many as it has ``images``."""
    dataset = open_dataset(recipe.data.val or recipe.data.train, recipe.data.val_split)
    return dataset.some(row["images"]) if "images" in row else dataset


def milliseconds(model: atrous.models.SegmentationModel) -> float:
    """The shortest time from an image of 513 × 513 to scores at network resolution, float32, of a few tries."""
    channels = model.backbone.in_channels
    image = torch.zeros(1, channels, COUNTED_AT, COUNTED_AT).contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(TRIES):
            begin = time.perf_counter()
            model.coarse_logits(image)
            times.append(time.perf_counter() - begin)
    return 1000 * min(times)


def judge(study: str, where: Table, row: Table, trimap: Sequence[int]) -> None:
    """Judge a row, and keep the result."""
    out = base_folder(study, where, row)
    model = network(study, where, row)
    evaluation = atrous.evaluate(model, judged_on(recipe_of(out), row), trimap=trimap)
    times = [json.loads(line)["time"] for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = evaluation.to_dict() | {
        "multiply_adds": multiply_adds(model, model.backbone.in_channels),
        "milliseconds": milliseconds(model.eval()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": (times[-1] - times[0]) / 60 if "of" not in row else None,  # validations included
        "provenance": provenance(),
    }
    target = run_folder(study, where, row["name"]) / "judged.json"
    write_atomically(target, (json.dumps(facts, indent=2) + "\n").encode())


def networks(study: str, where: Table, contents: Table) -> list[atrous.models.SegmentationModel]:
    """Those of all rows that were judged here."""
    rows = [row for row in contents["row"] if (run_folder(study, where, row["name"]) / "judged.json").exists()]
    return [network(study, where, row) for row in rows]


def strip(study: str, where: Table, contents: Table) -> None:
    """Image, truth and what each row made of it, side by side, for some images spread over the split."""
    models = networks(study, where, contents)
    if not models:
        return
    dataset = judged_on(recipe_for(where, contents["row"][0]), {})
    for index in np.linspace(0, len(dataset) - 1, IMAGES).astype(int):
        sample = dataset[int(index)]
        masks = [sample.mask, *(predict(model, sample.image).labels for model in models)]
        images = [sample.image, *(overlay(sample.image, mask, dataset.label_set, legend=False) for mask in masks)]
        target = ROOT / "runs" / "studies" / study / where["name"] / "images" / f"{index:04d}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(images, axis=1)).save(target)


def samples(study: str, where: Table, contents: Table) -> None:
    """What each row of a study makes of the images that installed packages carry, as one image that may be shown
    anywhere; the images of the datasets may not.
    """
    models = networks(study, where, contents)
    if not models:
        return
    sheets = []
    for file in find_demo_images():
        image = open_image(file).pixels
        image = cv2.resize(image, (WIDTH, round(image.shape[0] * WIDTH / image.shape[1])), interpolation=cv2.INTER_AREA)
        masks = [predict(model, image).labels for model in models]
        shown = [overlay(image, mask, model.label_set, legend=False) for mask, model in zip(masks, models, strict=True)]
        sheets.append(np.concatenate([image, *shown], axis=1))
    target = ROOT / "results" / "studies" / f"{study}_{where['name']}.jpg"
    write_atomically(target, encode_jpeg(np.concatenate(sheets, axis=0)))


if __name__ == "__main__":
    typer.run(main)
