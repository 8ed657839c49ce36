"""Training speed and memory beside plain loops around segmentation-models-pytorch: ``python -m benchmarks.train``."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks._compare import Comparison, write_comparisons
from benchmarks._images import SEED, make_images
from benchmarks._processes import answer, peak_bytes, race

CROP, BATCH, WORKERS = 320, 8, 1
IMAGES = 64
STEPS, ROUNDS = 6, 4
RATES = (6, 12, 18)
PEERS = {"plain": "smp loop, float32", "tuned": "smp loop, channels-last bfloat16"}
CONTENDERS = ("ours", *PEERS)
Block = Callable[[], float]
"""Trains some steps; returns the seconds spent waiting for images."""


def ours(room: Path, loaded: bool) -> Block:
    from atrous.training.recipe import check_recipe
    from atrous.training.trainer import Trainer

    table = {
        "model": {"pretrained": False, "options": {"separable": True}},
        "data": {"train": f"folder:{room}", "val_split": "none", "workers": WORKERS},
        "augment": {"crop": CROP, "scale": [0.5, 1.75]},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": {"batch_size": BATCH, "precision": "bfloat16", "epochs": 1000},
    }
    trainer = Trainer(check_recipe(table, "benchmark"), room / "run")
    trainer.make_trainable()
    stream = trainer.batches(0)
    stream = stream if loaded else itertools.repeat(next(stream))
    steps = itertools.count()

    def block() -> float:
        trainer.recent.clear()
        for _ in range(STEPS):
            progress, _ = trainer.step(next(steps), stream)
        return progress.waiting * sum(took for _, took in trainer.recent)

    return block


class Images(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The common dataset: OpenCV and albumentations."""

    def __init__(self, room: Path) -> None:
        import albumentations as A

        self.images = sorted((room / "images").iterdir())
        self.transform = A.Compose(
            [
                A.RandomScale((-0.5, 0.75), p=1),
                A.PadIfNeeded(CROP, CROP, border_mode=cv2.BORDER_CONSTANT, fill=(124, 116, 104), fill_mask=255),
                A.RandomCrop(CROP, CROP),
                A.HorizontalFlip(p=0.5),
                A.Normalize(),
                A.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        from PIL import Image

        file = self.images[index]
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        with Image.open(file.parents[1] / "masks" / f"{file.stem}.png") as mask:
            found = self.transform(image=image, mask=np.array(mask))
        return found["image"], found["mask"].long()


def smp_loop(room: Path, loaded: bool, tuned: bool) -> Block:
    """segmentation-models-pytorch's DeepLabV3Plus in the loop of its documentation; ``tuned`` adds
    channels-last memory, bfloat16 and fused AdamW.
    """
    import segmentation_models_pytorch as smp

    from atrous.models.layers import conv3x3

    model = smp.DeepLabV3Plus(
        "tu-tf_efficientnet_lite0", encoder_weights=None, classes=21, decoder_atrous_rates=RATES
    ).train()
    # Make it the same network: separable convolutions as in the paper (batch norm and ReLU after both halves), two of
    # them after the concatenation and none before it.
    aspp = model.decoder.aspp[0]
    for number, rate in enumerate(RATES, 1):
        aspp.convs[number] = conv3x3(320, 256, rate=rate, separable=True)
    model.decoder.aspp = aspp
    model.decoder.block2 = torch.nn.Sequential(*(conv3x3(width, 256, separable=True) for width in (304, 256)))
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=tuned)

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        loader = DataLoader(Images(room), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, prefetch_factor=4)
        while True:
            yield from loader

    stream = endless()
    stream = stream if loaded else itertools.repeat(next(stream))

    def block() -> float:
        waited = 0.0
        for _ in range(STEPS):
            begin = time.perf_counter()
            images, masks = next(stream)
            waited += time.perf_counter() - begin
            if tuned:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), masks, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return waited

    return block


def contend(name: str, room: Path, loaded: bool) -> None:
    """A contender: seconds of a block of steps and of waiting in it, and peak memory."""
    torch.manual_seed(SEED)
    block = ours(room, loaded) if name == "ours" else smp_loop(room, loaded, name == "tuned")
    block()

    def measured() -> tuple[float, ...]:
        begin = time.perf_counter()
        waited = block()
        seconds = time.perf_counter() - begin
        return seconds, waited, peak_bytes()

    answer(measured)


def speed(work: str, name: str, rounds: Sequence[Sequence[float]]) -> str:
    """A note on a contender's rounds of seconds, waiting and bytes."""
    seconds, waited, peak = zip(*rounds, strict=True)
    share = 100 * sum(waited) / sum(seconds)
    return (
        f"{work}, {name}: {BATCH * STEPS / min(seconds):.2f} images/s at best, {share:.0f} % of the time "
        f"waiting for images, at most {max(peak) / 1e6:.0f} MB resident."
    )


def race_loops(room: Path, loaded: bool) -> tuple[list[Comparison], list[str]]:
    """The rows and notes with data loading, or without."""
    measured = race("train", {name: (name, str(room), str(int(loaded))) for name in CONTENDERS}, ROUNDS)
    work = f"{STEPS} steps of {BATCH} at {CROP}², " + ("loading included" if loaded else "network alone")
    seconds = {name: [round_[0] for round_ in measured[name]] for name in CONTENDERS}
    rows = [Comparison(work, words, seconds["ours"], seconds[peer], target=1.0) for peer, words in PEERS.items()]
    return rows, [speed(work, name, measured[name]) for name in CONTENDERS]


def main() -> None:
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), IMAGES)
        for loaded in (False, True):
            comparisons, measured = race_loops(Path(folder), loaded)
            rows += comparisons
            notes += measured
    write_comparisons(
        "train",
        "Training",
        rows,
        seed=SEED,
        peers=["segmentation-models-pytorch", "albumentations"],
        notes=[
            "The same network for all: DeepLabv3+ on EfficientNet-Lite0, separable, rates 6/12/18, AdamW.",
            f"Each contender is a process of its own; they run in turns, {WORKERS} worker(s) each.",
            f"Ours at {CROP} computes on {CROP + 1}², as TF-SAME networks want 32k + 1.",
            *notes,
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contend(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1")
    else:
        main()
