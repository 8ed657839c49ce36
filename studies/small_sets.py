"""What the recipe for folders reaches on three small real data sets, beside a plain loop of another library.

    python -m studies.small_sets --root data --minutes 20

CrackForest and DRIVE are of thin structures, CWFID has rare classes; their layout is that of `data/README.md`. Each
becomes a folder by one command, and each row trains for the same processor time, from the same ImageNet weights. Rows
that are done are kept, so that the command continues where it was stopped. The results are written to
results/small_sets.md. It needs `pip install 'atrous[bench]'`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import atrous
from atrous.data.dataset import Dataset
from atrous.data.export import convert
from atrous.data.opening import open_dataset
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.files import dumps, write_atomically
from atrous.labels import IGNORE
from atrous.training.ema import warmup_steps
from atrous.training.recipe import Recipe
from atrous.training.recipe_file import load_recipe
from atrous.training.stages import train
from atrous.training.types import Progress
from studies.results import RESULTS, Result, Section, command_line, origin_of

RECIPE, ENCODER = "folder_deeplabv3plus_lite0", "tf_efficientnet_lite0"
CROP, BATCH = 320, 8
"""Of the plain loop, like the recipe's."""
TRIAL = 4
"""Steps that measure this machine's speed; the first does not count."""
DICE = ("loss.name={cross_entropy=1.0,dice=1.0}",)
SUGGESTED = ("loss.class_weights=auto",)
"""What `atrous data stats` suggests for these data."""


@dataclass(frozen=True)
class Small:
    """A data set: its name, what is wanted of it, and its splits."""

    name: str
    classes: tuple[str, ...]
    train: str = "train"
    val: str = "val"


SETS = (
    Small("crackforest", ("road", "crack")),
    Small("drive", ("retina", "vessel"), val="test"),
    Small("cwfid", ("soil", "crop", "weed")),
)
Row = dict[str, Any]
"""What was measured of a training, as JSON values."""
Preprocess = Callable[[Tensor], Tensor]
"""uint8 images ``(B, 3, H, W)`` → what a network takes."""


def make_folder(small: Small, root: Path, work: Path) -> tuple[Path, str]:
    """The data set as a folder, and the command that makes it."""
    folder = work / small.name / "folder"
    command = f"atrous data convert folder:{root.name}/{small.name} --out {small.name}"
    command += f" --split {small.train} --split {small.val}"
    if not folder.exists():
        convert(f"folder:{root / small.name}", folder, (small.train, small.val))
        text = (folder / "labels.toml").read_text(encoding="utf-8").splitlines()
        names = f"names = {json.dumps(small.classes)}"
        text = [names if line.startswith("names") else line for line in text]
        write_atomically(folder / "labels.toml", ("\n".join(text) + "\n").encode())
    return folder, command


def recipe_for(folder: Path, small: Small, settings: tuple[str, ...], steps: int) -> Recipe:
    """The recipe for folders, for a number of steps."""
    given = [
        f"data.train=folder:{folder}",
        f"data.train_split={small.train}",
        f"data.val_split={small.val}",
        "data.val_images=1",  # evaluation comes after the training
        "data.workers=0",  # so that all processor time is this process's
        f"training.steps={steps}",
        f"training.validate_every={steps}",
        *settings,
    ]
    recipe = load_recipe(RECIPE, given)
    ema = recipe.training.ema
    if ema is not None and steps < warmup_steps(ema):  # as the training itself advises
        recipe = load_recipe(RECIPE, [*given, "training.ema="])
    return recipe


def train_recipe(folder: Path, small: Small, settings: tuple[str, ...], minutes: float, out: Path) -> Row:
    """Train as many steps as the processor time allows, by a short trial, and evaluate."""
    seconds: list[float] = []

    def note(_: Progress) -> None:
        seconds.append(time.process_time())

    with tempfile.TemporaryDirectory() as trial:
        train(recipe_for(folder, small, settings, TRIAL), Path(trial) / "run", on_step=note)
    steps = max(TRIAL, round(60 * minutes * (TRIAL - 1) / (seconds[-1] - seconds[0])))
    seconds.clear()
    resume = (out / "state").exists()
    if resume:  # the number of steps was found when it began
        steps = json.loads((out.parent / f"{out.name}.steps").read_text())
    write_atomically(out.parent / f"{out.name}.steps", json.dumps(steps).encode())
    begin = time.process_time()
    train(recipe_for(folder, small, settings, steps), out, resume=resume, on_step=note)
    model = atrous.load(out / "last")
    data = open_dataset(f"folder:{folder}", small.val)
    evaluation = atrous.evaluate(model, data)
    return row_of(evaluation.confusion, steps, seconds[-1] - begin)


def train_plain(folder: Path, small: Small, minutes: float) -> Row:
    """The loop of segmentation_models_pytorch's examples: Dice loss, Adam, cosine schedule, crops and flips."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    net = smp.DeepLabV3Plus(f"tu-{ENCODER}", encoder_weights=None, classes=len(small.classes))
    preprocess = start_from_imagenet(net)
    loss = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True, ignore_index=IGNORE)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    data = open_dataset(f"folder:{folder}", small.train)
    samples = [data[index] for index in range(len(data))]
    budget, steps, begin = 60 * minutes, 0, time.process_time()
    net.train()
    while (used := time.process_time() - begin) < budget:
        for group in optimizer.param_groups:
            group["lr"] = 1e-5 + (2e-4 - 1e-5) * (1 + np.cos(np.pi * used / budget)) / 2
        crops = [crop(sample.image, sample.mask, random) for sample in random.choice(np.array(samples, object), BATCH)]
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        optimizer.zero_grad()
        loss(net(preprocess(images.permute(0, 3, 1, 2))), masks.long()).backward()
        optimizer.step()
        steps += 1
    used = time.process_time() - begin
    return row_of(evaluate_plain(net, preprocess, open_dataset(f"folder:{folder}", small.val)), steps, used)


def start_from_imagenet(net: nn.Module) -> Preprocess:
    """Give the encoder the weights that the recipe's backbone starts from; what normalises images for them."""
    ours = atrous.create_model("deeplabv3plus", backbone=ENCODER, num_classes=2, output_stride=16, pretrained=True)
    start = "backbone.net."
    weights = {f"model.{name.removeprefix(start)}": value for name, value in ours.state_dict().items()}
    encoder = net.encoder
    assert isinstance(encoder, nn.Module)
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in weights]
    assert not missing, missing[:3]
    encoder.load_state_dict({name: weights[name] for name in wanted})
    return ours.preprocess


def crop(image: NDArray[np.uint8], mask: NDArray[np.uint8], random: np.random.Generator) -> tuple[Any, Any]:
    """A random crop, mirrored at random; smaller images are padded."""
    below, right = (max(0, CROP - side) for side in mask.shape)
    image = np.pad(image, ((0, below), (0, right), (0, 0)))
    mask = np.pad(mask, ((0, below), (0, right)), constant_values=IGNORE)
    top, left = (int(random.integers(side - CROP + 1)) for side in mask.shape)
    window = np.s_[top : top + CROP, left : left + CROP]
    turn = -1 if random.random() < 0.5 else 1
    return np.ascontiguousarray(image[window][:, ::turn]), np.ascontiguousarray(mask[window][:, ::turn])


def evaluate_plain(net: nn.Module, preprocess: Preprocess, data: Dataset) -> ConfusionMatrix:
    """The counts over every image at its own size, padded to what the network takes."""
    confusion = ConfusionMatrix(data.label_set)
    net.eval()
    with torch.no_grad():
        for index in range(len(data)):
            sample = data[index]
            height, width = sample.mask.shape
            images = preprocess(torch.from_numpy(sample.image).permute(2, 0, 1)[None])
            logits = net(functional.pad(images, (0, -width % 16, 0, -height % 16)))
            confusion.update(sample.mask, logits[0, :, :height, :width].argmax(0).to(torch.uint8))
    return confusion


def row_of(confusion: ConfusionMatrix, steps: int, seconds: float) -> Row:
    """A row of the results."""
    metrics = confusion.metrics()
    return {
        "steps": steps,
        "processor_minutes": round(seconds / 60, 2),
        "mean_iou": float(metrics.mean_iou),
        "iou": [float(value) for value in metrics.iou],
        "threads": torch.get_num_threads(),
    }


ROWS: Mapping[str, Callable[[Path, Small, float, Path], Row]] = {
    "recipe": lambda folder, small, minutes, out: train_recipe(folder, small, (), minutes, out),
    "recipe + Dice": lambda folder, small, minutes, out: train_recipe(folder, small, DICE, minutes, out),
    "recipe + class weights": lambda folder, small, minutes, out: train_recipe(folder, small, SUGGESTED, minutes, out),
    "plain smp loop": lambda folder, small, minutes, _: train_plain(folder, small, minutes),
}


def measure(small: Small, root: Path, minutes: float, work: Path) -> tuple[str, dict[str, Row]]:
    """The command that makes the folder, and the rows, each measured once."""
    folder, command = make_folder(small, root, work)
    rows = {}
    for name, run in ROWS.items():
        file = work / small.name / f"{name.replace(' ', '_')}_{minutes:g}.json"
        if not file.exists():
            typer.echo(f"{small.name}, {name}: {minutes:g} minutes of a processor")
            write_atomically(file, dumps(run(folder, small, minutes, file.with_suffix(""))).encode())
        rows[name] = json.loads(file.read_text())
    return command, rows


def section(small: Small, command: str, minutes: float, rows: Mapping[str, Row]) -> Section:
    """The results of a data set."""
    table = [["", "steps", "processor minutes", "mean IoU %", *(f"{name} %" for name in small.classes)]]
    for name, row in rows.items():
        ious = [f"{100 * value:.1f}" for value in (row["mean_iou"], *row["iou"])]
        table.append([name, str(row["steps"]), f"{row['processor_minutes']:.1f}", *ious])
    gain = 100 * (rows["recipe + class weights"]["mean_iou"] - rows["recipe"]["mean_iou"])
    return Section(
        f"{small.name}, {minutes:g} minutes",
        f"`{command}`, with names in its `labels.toml`; evaluated on `{small.val}`, each image at its own size.",
        table,
        f"Class weights change the recipe's mean IoU by {gain:+.1f} points.",
        {"minutes": minutes, "rows": dict(rows)},
        origin_of(command_line("studies.small_sets"), seed=0, peers=["segmentation-models-pytorch"]),
    )


def main(
    root: Annotated[Path, typer.Option(help="Folder of crackforest, drive and cwfid.")],
    minutes: Annotated[float, typer.Option(help="Processor minutes of each training.")] = 20,
    only: Annotated[list[str] | None, typer.Option(help="Names of data sets; all of them by default.")] = None,
    work: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/small_sets"),
) -> None:
    """Train and evaluate every row that is not done, and write results/small_sets.md."""
    torch.set_num_threads(1)
    for small in SETS:
        if only and small.name not in only:
            continue
        command, rows = measure(small, root, minutes, work)
        Result(
            "Small real data sets: the recipe for folders beside a plain loop",
            "python -m studies.small_sets --root data --minutes 20",
            (
                "Each training has the same processor time on one thread (its steps alone: neither reading the model "
                "nor evaluating count), and starts from the same ImageNet weights of EfficientNet-Lite0 with a "
                "DeepLabv3+ decoder. The heading says how many minutes; a full run takes 20.",
                f"recipe: `{RECIPE}` as it is shipped; its averaged weights are left out where the run is too short "
                f"for them, as the training itself advises. recipe + Dice: with `--set '{DICE[0]}'`. recipe + class "
                f"weights: with `--set {SUGGESTED[0]}`, as `atrous data stats` suggests for these data.",
                "plain smp loop: segmentation_models_pytorch's DeepLabV3Plus, Dice loss, Adam at 2e-4 with a cosine "
                f"schedule, batches of {BATCH} crops of {CROP}², mirrored at random, as in its examples.",
                "One run each: differences of a few points are within what another seed changes.",
            ),
            {f"{small.name}_{minutes:g}": section(small, command, minutes, rows)},
        ).write(RESULTS / "small_sets")


if __name__ == "__main__":
    typer.run(main)
