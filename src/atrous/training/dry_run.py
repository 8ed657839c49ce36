"""A dry run: everything is built, two steps are taken and the first batch is drawn; nothing else is kept."""

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

from atrous.data.augment import Augment
from atrous.data.dataset import Dataset
from atrous.data.loading import Batch
from atrous.files import write_atomically
from atrous.labels import LabelSet
from atrous.models.base import Output
from atrous.training.recipe import Recipe
from atrous.training.stages import stages
from atrous.training.trainer import Trainer
from atrous.training.types import OnMessage
from atrous.viz import Pixels, encode_jpeg, overlay

SHOWN = 16
"""Largest number of images of a batch that are drawn."""


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run.

    Args:
        shapes: of the batch and of the network's outputs, by name.
        memory: bytes, by what holds them; ``activations`` is what the backward pass keeps of one part of a batch.
        peak: largest number of bytes allocated at once on a GPU; None on a CPU.
        loss: of the second step.
        seconds: duration of the second step, including reading.
        steps: length of the training.
        image: the first batch as the network sees it, with its masks drawn over it.
    """

    shapes: dict[str, tuple[int, ...]]
    memory: dict[str, int]
    peak: int | None
    loss: float
    seconds: float
    steps: int
    image: Path


def dry_run(
    recipe: Recipe,
    out: Path,
    on_message: OnMessage | None = None,
    *,
    train_data: Dataset | None = None,
    val_data: Dataset | None = None,
    augmentation: Augment | None = None,
) -> Iterator[DryRun]:
    """Build everything that a recipe describes and take two steps; of each stage, from the network of the one before.

    Args:
        recipe: the training.
        out: where ``dry-run.jpg`` is written, or ``dry-run-NAME.jpg`` for a stage; nothing else is written.
        on_message: called with the lines that :func:`atrous.training.stages.train` begins with.
        train_data: as for :func:`atrous.training.stages.train`.
        val_data: likewise.
        augmentation: likewise.

    Yields:
        A result for each stage.

    Raises:
        AtrousError: as :func:`atrous.training.stages.train`.
    """
    with tempfile.TemporaryDirectory() as kept:
        for begun, stage in zip(stages(recipe, Path(kept)), stages(recipe, out), strict=True):
            if stage.title and on_message:
                on_message(stage.title)
            image = out / ("-".join(filter(None, ("dry-run", stage.name))) + ".jpg")
            best = begun.folder / "best" if stage.folder != out else None
            trainer = Trainer(
                begun.recipe,
                stage.folder,
                train_data=train_data,
                val_data=val_data,
                augmentation=augmentation,
                on_message=on_message,
            )
            yield _try(trainer, image, best)


def _try(trainer: Trainer, image: Path, best: Path | None) -> DryRun:
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    trainer.introduce(trainer.class_weights())
    batch = next(trainer.batches(0))
    write_atomically(image, encode_jpeg(batch_sheet(batch, trainer.train_set.label_set)))
    trainer.make_trainable()
    stream = trainer.batches(0)
    shapes, activations = _observed_step(trainer, batch, stream)
    begin = time.perf_counter()
    progress, _ = trainer.step(1, stream)
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated(trainer.device) if trainer.device.type == "cuda" else None
    if best:
        trainer.validated_model.save(best)
    memory = _memory(trainer) | {"activations": activations}
    return DryRun(shapes, memory, peak, progress.loss, seconds, trainer.steps, image)


def _observed_step(trainer: Trainer, batch: Batch, stream: Iterator[Batch]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Take the first step; returns the shapes of batch and outputs, and the bytes kept for the backward pass."""
    shapes = {"batch": tuple(batch.images.shape)}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def record_shapes(_module: nn.Module, _images: object, outputs: list[Output]) -> None:
        shapes.update({output.name: (len(batch.images), *output.logits.shape[1:]) for output in outputs})

    hook = trainer.network.register_forward_hook(record_shapes)
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        trainer.step(0, stream)
    hook.remove()
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    return shapes, sum(size for address, size in saved.items() if address not in weights)


def _memory(trainer: Trainer) -> dict[str, int]:
    """Bytes of everything that stays from step to step."""
    optimizer = trainer.optimizer
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    weights = _bytes([*trainer.model.parameters(), *trainer.model.buffers()])
    return {
        "weights": weights * (2 if trainer.ema else 1),
        "gradients": _bytes(trained),
        "optimizer": _bytes(states),
    }


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def batch_sheet(batch: Batch, label_set: LabelSet) -> Pixels:
    """A batch's images with their masks drawn over them, in rows; RGB uint8 ``(H, W, 3)``."""
    images = [
        overlay(np.ascontiguousarray(image[:3].permute(1, 2, 0).numpy()), mask.numpy(), label_set, legend=False)
        for image, mask in zip(batch.images[:SHOWN], batch.masks[:SHOWN], strict=True)
    ]
    across = math.ceil(math.sqrt(len(images)))
    images += [np.full_like(images[0], 255)] * (-len(images) % across)
    return np.vstack([np.hstack(images[i : i + across]) for i in range(0, len(images), across)])
