"""A training's rehearsal: everything is built, two steps are taken, the batch is drawn; nothing is kept."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from atrous.data.loading import Batch
from atrous.files import write_atomically
from atrous.labels import LabelSet
from atrous.models.base import Output
from atrous.training.recipe import Recipe
from atrous.training.stages import stages
from atrous.training.trainer import Run
from atrous.training.types import OnNote
from atrous.viz import Pixels, encode_jpeg, overlay

SHOWN = 16
"""Most images of a batch that are drawn."""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal has found.

    Args:
        shapes: of the batch and of each of the network's score maps, by name.
        memory: bytes, by what holds them; ``activations`` is what the backward pass needs of one part of a batch.
        peak: most bytes allocated at once on a GPU; None on a CPU.
        loss: of the second step.
        seconds: the second step took, reading included.
        steps: length of the training.
        image: the first batch as the network sees it, masks drawn over it.
    """

    shapes: dict[str, tuple[int, ...]]
    memory: dict[str, int]
    peak: int | None
    loss: float
    seconds: float
    steps: int
    image: Path


def rehearse(recipe: Recipe, out: Path, on_note: OnNote | None = None) -> Iterator[Rehearsal]:
    """Build what a recipe asks for, and take two steps; of each stage, from the network of the one before.

    Args:
        recipe: the training.
        out: where ``dry-run.jpg`` goes, for a stage ``dry-run-NAME.jpg``; nothing else is written.
        on_note: called with the lines that :func:`atrous.training.stages.train` begins with.

    Yields:
        What was found, one for each stage.

    Raises:
        What training would raise.
    """
    with tempfile.TemporaryDirectory() as kept:
        for begun, stage in zip(stages(recipe, Path(kept)), stages(recipe, out), strict=True):
            if stage.title and on_note:
                on_note(stage.title)
            image = out / ("-".join(filter(None, ("dry-run", stage.name))) + ".jpg")
            best = begun.folder / "best" if stage.folder != out else None
            yield _rehearse(Run(begun.recipe, stage.folder, on_note=on_note), image, best)


def _rehearse(run: Run, image: Path, best: Path | None) -> Rehearsal:
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    run.introduce(run.count_class_weights())
    batch = next(run.batches(0))
    write_atomically(image, encode_jpeg(batch_sheet(batch, run.train_set.label_set)))
    shapes = {"batch": tuple(batch.images.shape)}
    run.make_trainable()
    stream = run.batches(0)
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def look(_module: nn.Module, _images: object, outputs: list[Output]) -> None:
        shapes.update({output.name: (len(batch.images), *output.logits.shape[1:]) for output in outputs})

    hook = run.network.register_forward_hook(look)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run.step(0, stream)
    hook.remove()
    held = {parameter.untyped_storage().data_ptr() for parameter in run.model.parameters()}
    begin = time.perf_counter()
    progress, _ = run.step(1, stream)
    seconds = time.perf_counter() - begin
    trained = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    states = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    weights = _bytes([*run.model.parameters(), *run.model.buffers()])
    memory = {
        "weights": weights * (2 if run.ema else 1),
        "gradients": _bytes(trained),
        "optimizer": _bytes(states),
        "activations": sum(size for place, size in saved.items() if place not in held),
    }
    peak = torch.cuda.max_memory_allocated(run.device) if run.device.type == "cuda" else None
    if best:
        run.judged.save(best)
    return Rehearsal(shapes, memory, peak, progress.loss, seconds, run.steps, image)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def batch_sheet(batch: Batch, label_set: LabelSet) -> Pixels:
    """A batch's images with their masks over them, in rows; RGB uint8 ``(H, W, 3)``."""
    images = [
        overlay(np.ascontiguousarray(image[:3].permute(1, 2, 0).numpy()), mask.numpy(), label_set, legend=False)
        for image, mask in zip(batch.images[:SHOWN], batch.masks[:SHOWN], strict=True)
    ]
    across = math.ceil(math.sqrt(len(images)))
    images += [np.full_like(images[0], 255)] * (-len(images) % across)
    return np.vstack([np.hstack(images[i : i + across]) for i in range(0, len(images), across)])
