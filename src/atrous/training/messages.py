"""What a training reports about itself, and about what went wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from atrous.data.dataset import Dataset, dataset_name
from atrous.data.loading import Batch
from atrous.files import write_atomically
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel
from atrous.training.ema import warmup_steps
from atrous.training.gradients import precision_on
from atrous.training.recipe import Recipe
from atrous.training.validation import Validation
from atrous.viz import encode_jpeg, overlay

FEW_STEPS = 200
"""A training of fewer steps gives no useful model; it only shows that everything runs."""
STALE_SHARE = 0.1
"""The largest share of the initial values in batch norm's final statistics that needs no warning."""


def introduction(
    recipe: Recipe,
    model: SegmentationModel,
    sets: tuple[Dataset, Dataset | None],
    hardware: tuple[torch.device, int],
    steps: int,
    per_epoch: int,
    input_size: str,
    class_weights: Sequence[float] | None,
) -> Iterator[str]:
    """Lines about what is trained, and on what.

    Args:
        recipe: of the training.
        model: before the first step.
        sets: the training and validation data.
        hardware: the device, and the number of processes.
        steps: length of the training.
        per_epoch: steps in a pass over the training data.
        input_size: of a training image.
        class_weights: of the loss.
    """
    training, (train_set, val_set), (device, world) = recipe.training, sets, hardware
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield (
        f"{model.name} on {model.backbone.name}, output stride {model.output_stride}: "
        f"{total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M of them trained"
    )
    if recipe.distillation.teacher:
        yield f"teacher: {recipe.distillation.teacher}, {recipe.distillation.share:.0%} of the loss"
    validation = f"{dataset_name(val_set)}, {_count(len(val_set), 'image')}" if val_set else "none"
    yield (
        f"data: {dataset_name(train_set)}, {_count(len(train_set), 'image')}, {model.num_classes} classes; "
        f"validation: {validation}"
    )
    epochs = float(f"{steps / per_epoch:.3g}")
    where = f"{device}{f', {world} processes' if world > 1 else ''}, {_cores()} cores"
    yield (
        f"{_count(steps, 'step')} of {_count(training.batch_size, 'image')} at {input_size} "
        f"({_count(epochs, 'epoch')}), {precision_on(device, recipe)} on {where}, "
        f"{_count(recipe.data.workers, 'worker')}"
    )
    if recipe.data.workers * world > _cores():
        yield f"note: more workers than cores ({_cores()}) rarely help: --set data.workers={_cores() // world}"
    if class_weights is not None:
        pairs = zip(train_set.label_set.names, class_weights, strict=True)
        yield "class weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in pairs)
    if steps < FEW_STEPS:
        yield f"note: {_count(steps, 'step')} can show that everything runs; a good model takes thousands"
    if training.ema is not None and steps < (warm := warmup_steps(training.ema)):
        yield (
            f"note: the averaged weights (training.ema = {training.ema:g}), which are validated and saved, lag behind "
            f"the trained ones until about step {warm}, and this training has {steps}; "
            "--set training.ema= validates and saves the trained ones"
        )
    momentum = training.batch_norm_momentum if training.batch_norm != "all_frozen" else None
    if momentum and (stale := (1 - momentum) ** steps) > STALE_SHARE:
        yield (
            f"note: with training.batch_norm_momentum = {momentum:g}, {100 * stale:.0f} % of the batch norm statistics "
            f"will still be the initial ones after {_count(steps, 'step')}"
        )


def validated(step: int, validation: Validation, ema: float | None, losses: Sequence[float]) -> str:
    """The line about a validation.

    Args:
        step: after which it was made.
        validation: its result.
        ema: decay of the averaged weights, if these were validated.
        losses: of the last steps.
    """
    mean_iou = validation.metric("mean_iou")
    metrics = "mean IoU undefined: every pixel of the validation images is ignored"
    if mean_iou is not None:
        metrics = f"mean IoU {100 * mean_iou:.2f} %"
    if validation.loss is not None:
        metrics += f", validation loss {validation.loss:.4f}"
    which = "trained weights"
    if ema is not None:
        which = "averaged weights (EMA)"
        if (warm := warmup_steps(ema)) > step:
            which += f", which lag behind the trained ones until about step {warm}"
    loss = f"; training loss {sum(losses) / len(losses):.4f}" if losses else ""
    return f"step {step}: {metrics} ({which}){loss}"


def out_of_memory(recipe: Recipe, device: torch.device, world: int, input_size: str) -> str:
    """The message about a batch that does not fit into the device's memory."""
    training = recipe.training
    here = training.batch_size // (world * training.accumulate)
    return (
        f"{here} images of {input_size} do not fit into the memory of {device}; the same numbers "
        f"with less memory: --set training.accumulate={2 * training.accumulate}; else a smaller batch_size or crop"
    )


def draw_diverged(out: Path, step: int, parts: Sequence[Batch], label_set: LabelSet) -> Path:
    """Draw the batch of a diverged step as the network saw it, with its masks; returns the folder."""
    folder = out / f"diverged-{step:06}"
    for part in parts:
        for name, image, mask in zip(part.names, part.images, part.masks, strict=True):
            pixels = image[:3].permute(1, 2, 0).contiguous().numpy()
            drawn = encode_jpeg(overlay(pixels, mask.numpy(), label_set))
            write_atomically(folder / f"{Path(name).stem}.jpg", drawn)
    return folder


def diverged(step: int, loss: float, norm: float, names: Sequence[str], folder: Path) -> str:
    """The message about a loss or gradient that is not finite."""
    what = f"the norm of the gradient is {norm:g}" if math.isfinite(loss) else f"the loss is {loss:g}"
    return (
        f"{what} at step {step}, on {', '.join(names)}; these images are drawn in {folder} as the network saw them. "
        "Try a smaller optimizer.lr, a longer schedule.warmup, or optimizer.clip_norm"
    )


def stopped_with_workers(saved_step: int | None) -> str:
    """The message about a signal that also ended the processes that read images."""
    state = "nothing was saved yet" if saved_step is None else f"--resume continues after step {saved_step}"
    return f"stopped, together with the processes that read images; {state}"


def worker_died(error: RuntimeError, workers: int) -> str:
    """The message about a process that reads images and was killed."""
    return (
        f"a process that reads images died ({str(error).splitlines()[0]}), usually because memory ran out; "
        f"try fewer: --set data.workers={workers // 2}"
    )


def _count(number: float, what: str) -> str:
    return f"{number:.6g} {what}{'' if number == 1 else 's'}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
