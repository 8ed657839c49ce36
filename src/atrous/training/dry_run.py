"""A dry run: everything is built, a few steps on one or two images are taken and the first batch is drawn; nothing else
is kept.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from atrous.data.augment import Augment
from atrous.data.dataset import Dataset
from atrous.data.files.eight_bits import shown_pixels
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
    """The result of a dry run; memory and time of a batch are extrapolated from steps on one and on two images.

    Args:
        shapes: of one part of a batch and of the network's outputs, by name.
        memory: bytes, by what holds them; ``activations`` is what the backward pass keeps of one part of a batch.
        peak: largest number of bytes allocated at once on a GPU; None on a CPU.
        available: bytes of the machine's or the GPU's memory; None if unknown.
        accumulate: the smallest number of parts of a batch with which it fits into that memory, by this estimate; None
            if it fits as it is, or with no number of parts.
        loss: of the last step.
        seconds: duration of a step on a whole batch, including reading.
        steps: length of the training.
        image: the first batch as the network sees it, with its masks drawn over it.
    """

    shapes: dict[str, tuple[int, ...]]
    memory: dict[str, int]
    peak: int | None
    available: int | None
    accumulate: int | None
    loss: float
    seconds: float
    steps: int
    image: Path

    @property
    def needed(self) -> int:
        """Bytes that the training needs: the peak on a GPU, else everything in :attr:`memory`."""
        return self.peak or sum(self.memory.values())


def dry_run(
    recipe: Recipe,
    out: Path,
    on_message: OnMessage | None = None,
    *,
    train_data: Dataset | None = None,
    val_data: Dataset | None = None,
    augmentation: Augment | None = None,
) -> Iterator[DryRun]:
    """Build everything that a recipe describes and take a few steps; of each stage, from the network of the one before.

    Nothing is downloaded: pretrained weights that are not on this machine are replaced by random ones, which take as
    much memory and time.

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
                download=False,
                on_message=on_message,
            )
            yield _try(trainer, image, best)


def _try(trainer: Trainer, image: Path, best: Path | None) -> DryRun:
    trainer.introduce(trainer.class_weights())
    begin = time.perf_counter()
    batch = next(trainer.batches(0, workers=0))
    reading = (time.perf_counter() - begin) / len(batch.names)
    write_atomically(image, encode_jpeg(batch_sheet(batch, trainer.train_set.label_set)))
    trainer.make_trainable()
    found = _measured(trainer, batch)
    if best:
        trainer.validated_model.save(best)
    memory = _memory(trainer) | {"activations": found.activations}
    needed = found.peak or sum(memory.values())
    available = _available(trainer.device)
    return DryRun(
        found.shapes,
        memory,
        found.peak,
        available,
        _fitting_parts(trainer, needed - found.activations, found.activations, available),
        found.loss,
        _with_reading(trainer, found.seconds, reading),
        trainer.steps,
        image,
    )


class _Measured(NamedTuple):
    """A step on some images; of one part of a batch where a step has several."""

    shapes: dict[str, tuple[int, ...]]
    activations: int
    peak: int | None
    seconds: float
    loss: float


def _measured(trainer: Trainer, part: Batch) -> _Measured:
    """What a part of a batch needs, extrapolated linearly from one and from two of its images."""
    images = len(part.names)
    _step(trainer, 0, _first(part, 1))  # kernels are compiled and memory is allocated
    one = _step(trainer, 1, _first(part, 1))
    if images == 1:
        return one
    two = _step(trainer, 2, _first(part, 2))

    def at(first: float, second: float) -> float:
        return first + (images - 1) * max(0.0, second - first)

    return _of_images(two, images)._replace(
        activations=int(at(one.activations, two.activations)),
        peak=None if one.peak is None or two.peak is None else int(at(one.peak, two.peak)),
        seconds=at(one.seconds, two.seconds),
    )


def _of_images(found: _Measured, images: int) -> _Measured:
    """The same with the shapes of another number of images."""
    return found._replace(shapes={name: (images, *shape[1:]) for name, shape in found.shapes.items()})


def _first(part: Batch, images: int) -> Batch:
    """The first images of a batch."""
    return part._replace(
        images=part.images[:images],
        masks=part.masks[:images],
        names=part.names[:images],
        auxiliary_masks={name: masks[:images] for name, masks in part.auxiliary_masks.items()},
    )


def _step(trainer: Trainer, step: int, part: Batch) -> _Measured:
    """Take a step, and note shapes, bytes kept for the backward pass, the peak of a GPU's memory, and time."""
    shapes = {"batch": tuple(part.images.shape)}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def record_shapes(_module: nn.Module, _images: object, outputs: list[Output]) -> None:
        shapes.update({output.name: (len(part.images), *output.logits.shape[1:]) for output in outputs})

    cuda = trainer.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(trainer.device)
    hook = trainer.gradients.network.register_forward_hook(record_shapes)
    begin = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        if trainer.recipe.model.pretrained and not trainer.recipe.model.start_from:
            for group in trainer.optimizer.param_groups:
                group["lr"] = 0.0  # random weights may stand for pretrained ones here, and would diverge
        loss, _, _ = trainer.update(step, [part])
    if cuda:
        torch.cuda.synchronize(trainer.device)
    seconds = time.perf_counter() - begin
    hook.remove()
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    activations = sum(size for address, size in saved.items() if address not in weights)
    peak = torch.cuda.max_memory_allocated(trainer.device) if cuda else None
    return _Measured(shapes, activations, peak, seconds, loss)


def _with_reading(trainer: Trainer, part_seconds: float, image_seconds: float) -> float:
    """Seconds of a step on a whole batch, whose images are read meanwhile if there are workers."""
    training, workers = trainer.recipe.training, trainer.recipe.data.workers
    computing: float = training.accumulate * part_seconds
    reading: float = image_seconds * training.batch_size / trainer.world
    return max(computing, reading / workers) if workers else computing + reading


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


def _available(device: torch.device) -> int | None:
    """Bytes of memory where the training runs, as far as this process may use them."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return None
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # a container's
        with suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int(Path(file).read_text(encoding="utf-8")))
    return min(limits)


def _fitting_parts(trainer: Trainer, constant: int, activations: int, available: int | None) -> int | None:
    """The smallest number of parts of a batch that fits; None if the recipe's does, or none."""
    parts, share = trainer.recipe.training.accumulate, trainer.recipe.training.batch_size // trainer.world
    if available is None or constant + activations <= available:
        return None
    for more in range(parts + 1, share + 1):
        if share % more == 0 and constant + activations * parts / more <= available:
            return more
    return None


def batch_sheet(batch: Batch, label_set: LabelSet) -> Pixels:
    """A batch's images with their masks drawn over them, in rows; RGB uint8 ``(H, W, 3)``."""
    images = [
        overlay(shown_pixels(image.permute(1, 2, 0).numpy()), mask.numpy(), label_set, legend=False)
        for image, mask in zip(batch.images[:SHOWN], batch.masks[:SHOWN], strict=True)
    ]
    across = math.ceil(math.sqrt(len(images)))
    images += [np.full_like(images[0], 255)] * (-len(images) % across)
    return np.vstack([np.hstack(images[i : i + across]) for i in range(0, len(images), across)])
