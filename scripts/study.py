"""Train and judge the rows of a study, one after the other, and write its table: a paper's ablation from one command.

    python scripts/study.py fcn_skips                  everything that is not done yet, then the table
    python scripts/study.py fcn_skips --data CamVid    only on some data
    python scripts/study.py fcn_skips --table          only the table, of what is done

A study is a file in recipes/studies: data (a recipe each, and what is set for a CPU or a GPU) times rows (what is `set`
otherwise, and more on a `gpu`; or the trained network `of` another row with a `change` of its attributes, or another
`method`), some the same `again` with another seed; and the paper's claims (rows in the order from worse to better, or
the gain of one over another along boundaries). A run that was cut off goes on; one that is done is not trained again.
The result stands in results/studies, the runs and pictures of the rows side by side in runs/studies.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from claims import verdicts
from PIL import Image

import atrous
from atrous.data.datasets import PairedDataset, open_dataset
from atrous.data.images import open_image
from atrous.evaluation.dial import COUNTED_AT, multiply_adds
from atrous.evaluation.report import aligned, percent
from atrous.inference.demo import find_demo_photos
from atrous.inference.method import Method
from atrous.inference.predictor import encode_jpeg, predict, write_atomically
from atrous.labels import Mask
from atrous.provenance import provenance
from atrous.training.recipe import Recipe, load_recipe
from atrous.training.trainer import NonFiniteLossError, Progress, train
from atrous.viz import Pixels, overlay

ROOT = Path(__file__).resolve().parents[1]
PICTURES = 6
"""How many pictures are shown with what each row made of them."""
WIDTH = 320
"""Of the sample photos, in pixels."""
TRIES = 5
"""Of a time that is taken."""
EVERY = 50
"""Steps between two lines about a training."""
Table = dict[str, Any]


def main(
    name: Annotated[str, typer.Argument(help="A file of recipes/studies, without .toml.")],
    data: Annotated[list[str] | None, typer.Option(help="Only on these data.")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", help="Only these rows.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Train nothing; write the table of what is done.")] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Show what each row makes of sample photos of installed packages, too.")
    ] = False,
) -> None:
    """Run a study and write its table."""
    study = tomllib.loads((ROOT / "recipes" / "studies" / f"{name}.toml").read_text(encoding="utf-8"))
    for where in study["data"]:
        for row in study["row"]:
            if not table and where["name"] in (data or [where["name"]]) and row["name"] in (rows or [row["name"]]):
                run(name, where, row, study.get("trimap", ()))
    text = "\n".join(
        [f"# {study['title']}\n", study["paper"].strip(), *(section(name, w, study) for w in study["data"])]
    )
    result = ROOT / "results" / "studies" / f"{name}.md"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(text + "\n", encoding="utf-8")
    for where in (where for where in study["data"] if pictures and where["name"] in (data or [where["name"]])):
        samples(name, where, study)
    typer.echo(text)


def folder(study: str, where: Table, row: Table) -> Path:
    """Where the run of one row on some data stands."""
    return ROOT / "runs" / "studies" / study / where["name"] / row["name"].replace("/", "-").replace(" ", "_")


def run(study: str, where: Table, row: Table, trimap: Sequence[int]) -> None:
    """Train a row, unless it is done or of another one, and judge it in float32."""
    out = folder(study, where, row)
    if (out / "judged.json").exists():
        return
    typer.echo(f"{where['name']}, {row['name']}:")
    if "of" not in row:
        here = torch.cuda.is_available()
        settings = [*where["gpu" if here else "set"], *row.get("set", []), *(row.get("gpu", []) if here else [])]
        recipe = load_recipe(ROOT / "recipes" / where["recipe"], settings)
        try:
            train(recipe, out, resume=(out / "state").exists(), on_step=tell)
        except NonFiniteLossError as error:  # the other rows go on; this one is not in the table
            typer.secho(f"{row['name']} diverged: {error}", fg="red", err=True)
            return
    judge(study, where, row, trimap)


def tell(now: Progress) -> None:
    """A line now and then."""
    if now.step % EVERY == 0 or now.step == now.steps:
        typer.echo(f"  step {now.step}/{now.steps}  loss {now.loss:.3f}  {now.images_per_second:.1f} images/s")


def trained(study: str, where: Table, row: Table) -> Path:
    """The run whose network a row is about."""
    return folder(study, where, {"name": row.get("of", row["name"])})


def network(study: str, where: Table, row: Table) -> atrous.models.SegmentationModel:
    """What a run ended with, as the row has it."""
    model = atrous.load(trained(study, where, row) / "last")
    for name, value in row.get("change", {}).items():
        setattr(model, name, value)
    return model


def method(row: Table) -> Method:
    """How the row looks at a picture."""
    settings = dict(row.get("method", {}))
    return Method(tuple(settings.pop("scales", (1.0,))), **settings)


def recipe_of(run: Path) -> Recipe:
    """What a run was trained by."""
    return Recipe.model_validate(json.loads((run / "run.json").read_text(encoding="utf-8"))["recipe"])


def judged_on(recipe: Recipe, row: Table) -> PairedDataset:
    """The pictures that a row is judged on: all of the split, or as many as it has ``pictures``."""
    dataset = open_dataset(recipe.data.val or recipe.data.train, recipe.data.val_split)
    return dataset.some(row["pictures"]) if "pictures" in row else dataset


def milliseconds(model: atrous.models.SegmentationModel) -> float:
    """The shortest time from a picture of 513 × 513 to scores at network resolution, float32, of a few tries."""
    channels = model.backbone.in_channels
    picture = torch.zeros(1, channels, COUNTED_AT, COUNTED_AT).contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(TRIES):
            begin = time.perf_counter()
            model.scores(picture)
            times.append(time.perf_counter() - begin)
    return 1000 * min(times)


def judge(study: str, where: Table, row: Table, trimap: Sequence[int]) -> None:
    """Judge a row, and keep the result."""
    out = trained(study, where, row)
    recipe, model = recipe_of(out), network(study, where, row)
    evaluation = atrous.evaluate(model, judged_on(recipe, row), trimap=trimap, method=method(row))
    facts = evaluation.to_dict() | {
        "multiply_adds": multiply_adds(model, model.backbone.in_channels),
        "milliseconds": milliseconds(model.eval()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": training_minutes(out) if "of" not in row else None,
        "provenance": provenance(),
    }
    target = folder(study, where, row) / "judged.json"
    write_atomically(target, (json.dumps(facts, indent=2) + "\n").encode())


def training_minutes(out: Path) -> float:
    """Wall-clock time of a run by its log, validations included."""
    times = [json.loads(line)["time"] for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(times[-1] - times[0]) / 60


def section(study: str, where: Table, contents: Table) -> str:
    """The table of one data set, with the budget and where it was computed."""
    done = [(row, out) for row in contents["row"] if ((out := folder(study, where, row)) / "judged.json").exists()]
    if not done:
        return f"\n## {where['name']}\n\nNot run yet: `python scripts/study.py {study} --data {where['name']}`."
    facts = [json.loads((out / "judged.json").read_text(encoding="utf-8")) for _, out in done]
    recipe = recipe_of(trained(study, where, done[0][0]))
    four = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
    bands = [str(width) for width in contents.get("trimap", ())]
    lines = [["network", "pixel acc.", "mean acc.", "mean IU", "f.w. IU", "frequent", *where["classes"]]]
    lines[0] += [*(f"≤ {width} px" for width in bands), "params", "10⁹ madds", "ms", "min"]
    for (row, _), found in zip(done, facts, strict=True):
        ious = {entry["name"]: entry["iou"] for entry in found["classes"]}
        near = {str(band["width"]): band["mean_iou"] for band in found["trimap"]}
        numbers = [found[key] for key in four] + [found["mean_iou_of_frequent_classes"]["mean_iou"]]
        numbers += [ious[name] for name in where["classes"]] + [near[width] for width in bands]
        shown = [percent(float("nan") if n is None else n) for n in numbers]
        minutes = "" if found["minutes"] is None else f"{found['minutes']:.0f}"
        costs = [f"{found['multiply_adds'] / 1e9:.2f}", f"{found['milliseconds']:.0f}", minutes]
        lines.append([row["name"], *shown, f"{found['parameters'] / 1e6:.2f} M", *costs])
    strip(study, where, done, recipe)
    judged, training, facts_of = facts[0], recipe.training, facts[0]["provenance"]
    frequent = judged["mean_iou_of_frequent_classes"]["min_pictures"]
    budget = f"{training.epochs:g} epochs" if training.steps is None else f"{training.steps} steps"
    return f"""
## {where["name"]}

{judged["pictures"]} pictures of {judged["data"]}, each at its own size, in one confusion matrix; in %.
"frequent" is the mean IoU over the classes (and background) in at least {frequent} of them; "madds" are multiply-adds
and "ms" the time (float32, the best of {TRIES} tries) from a picture of {COUNTED_AT} × {COUNTED_AT} to scores at
network resolution; "min" are minutes of training. Times were taken on a machine with other work beside it.

- Budget of each row{"" if training.steps is None else ", where it says nothing else"}: {budget} over
  {recipe.data.train_split}, batch {training.batch_size}, crop {recipe.augment.crop}, seed {training.seed}, backbone
  {recipe.model.backbone}; recipe `recipes/{where["recipe"]}`.
- Hardware: {facts_of["hardware"]}; commit {facts_of["commit"]}.
- Again, and with the whole budget where there is a GPU: `python scripts/study.py {study} --data {where["name"]}`.

{aligned(lines)}

{verdicts(contents, {row["name"]: found for (row, _), found in zip(done, facts, strict=True)})}
{curves(done)}"""


def curves(done: list[tuple[Table, Path]]) -> str:
    """How each row learnt, where it was validated more than once: the loss since the time before, and mean IU."""
    lines = [["network", "step", "loss", "mean IU"]]
    for row, out in ((row, out) for row, out in done if "of" not in row):
        losses: list[float] = []
        points: list[list[str]] = []
        for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            if "loss" in told:
                losses.append(told["loss"])
            if told.get("mean_iou") is not None:
                points.append([row["name"], str(told["step"]), f"{np.mean(losses):.3f}", percent(told["mean_iou"])])
                losses = []
        lines += points if len(points) > 1 else []
    return f"\n{aligned(lines)}" if len(lines) > 1 else ""


def strip(study: str, where: Table, done: list[tuple[Table, Path]], recipe: Recipe) -> None:
    """Photo, truth and what each row made of it, side by side, for some pictures spread over the split."""
    dataset = judged_on(recipe, {})
    models = [(network(study, where, row), method(row)) for row, _ in done]
    for index in np.linspace(0, len(dataset) - 1, PICTURES).astype(int):
        sample = dataset[int(index)]
        masks = [sample.mask, *(look(model, how, sample.image) for model, how in models)]
        pictures = [sample.image, *(overlay(sample.image, mask, dataset.labels, legend=False) for mask in masks)]
        target = ROOT / "runs" / "studies" / study / where["name"] / "pictures" / f"{index:04d}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(pictures, axis=1)).save(target)


def samples(study: str, where: Table, contents: Table) -> None:
    """What each row of a study makes of the photos that installed packages carry, as one picture that may be shown
    anywhere; the pictures of the datasets may not.
    """
    rows = [row for row in contents["row"] if (folder(study, where, row) / "judged.json").exists()]
    sheets = []
    for photo in find_demo_photos():
        image = open_image(photo).pixels
        image = cv2.resize(image, (WIDTH, round(image.shape[0] * WIDTH / image.shape[1])), interpolation=cv2.INTER_AREA)
        shown = [image]
        for row in rows:
            model = network(study, where, row)
            shown.append(overlay(image, look(model, method(row), image), model.labels, legend=False))
        sheets.append(np.concatenate(shown, axis=1))
    target = ROOT / "results" / "studies" / f"{study}_{where['name']}.jpg"
    write_atomically(target, encode_jpeg(np.concatenate(sheets, axis=0)))


def look(model: atrous.models.SegmentationModel, how: Method, image: Pixels) -> Mask:
    """The labels of a picture."""
    return predict(model, image, scales=how.scales, flip=how.flip, merge=how.merge, crf=how.crf or False).labels


if __name__ == "__main__":
    typer.run(main)
