"""Training steps, from a batch in pinned memory to new weights and their average."""

from __future__ import annotations

import itertools
import tempfile
from functools import partial
from pathlib import Path

import torch

from atrous.training.recipe import check_recipe
from atrous.training.trainer import Trainer
from benchmarks._images import make_images
from benchmarks.gpu._measure import Measured, Rows, Sizes, attempt, measured, operations, random_images
from benchmarks.gpu.networks import LITE0, RESNET101, Network


def rows(device: torch.device, sizes: Sizes, autotune: bool) -> Rows:
    """A small and a large network."""
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        make_images(room, sizes.batch)
        for case, tuned in itertools.product((LITE0, RESNET101), (False, True)[: 1 + autotune]):
            name = f"step of {case.name}, {sizes.batch} × {sizes.crop}²" + (", cudnn.benchmark" if tuned else "")
            yield attempt(name, partial(step, name, case, room, device, sizes, tuned))


def step(name: str, case: Network, room: Path, device: torch.device, sizes: Sizes, tuned: bool) -> Measured:
    """A training step of a network."""
    table = {
        "model": {
            "name": case.architecture,
            "backbone": case.backbone,
            "output_stride": case.output_stride,
            "pretrained": False,
            "options": case.options,
        },
        "data": {"train": f"folder:{room}", "val_split": "none", "workers": 0},
        "augment": {"crop": sizes.crop},
        "training": {"batch_size": sizes.batch, "steps": 100_000, "ema": 0.999},
    }
    trainer = Trainer(check_recipe(table, "benchmark"), room / "run")
    with torch.inference_mode():
        count = 3 * sizes.batch * operations(partial(trainer.model.eval(), random_images(device, 1, sizes.crop)))
    trainer.make_trainable()
    stream = itertools.repeat(next(trainer.batches(0)))
    numbers = itertools.count()
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = tuned
    try:
        return measured(name, lambda: trainer.step(next(numbers), stream), device, images=sizes.batch, operations=count)
    finally:
        torch.backends.cudnn.benchmark = before
