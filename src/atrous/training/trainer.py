"""One training: its parts and its loop, for one or many processes, through Hugging Face Accelerate."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from atrous.data.augment import Augment
from atrous.data.dataset import Dataset, dataset_name
from atrous.data.loading import Batch, batches, steps_per_epoch
from atrous.evaluation.evaluate import Evaluation
from atrous.labels import IGNORE
from atrous.models.base import Output, SegmentationModel
from atrous.training.building import build_model
from atrous.training.data import (
    count_class_weights,
    find_presence,
    given_class_weights,
    make_augmentation,
    open_data,
    sampling_weights,
)
from atrous.training.ema import update_ema
from atrous.training.freezing import batch_norms, freeze
from atrous.training.messages import (
    diverged,
    draw_diverged,
    introduction,
    out_of_memory,
    stopped_with_workers,
    worker_died,
)
from atrous.training.objective import MAIN, SegmentationLoss, make_terms
from atrous.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from atrous.training.parallel import SynchronisedBatchNorm, make_accelerator
from atrous.training.recipe import Recipe, RecipeError, check_recipe
from atrous.training.run_folder import RunFolder, metrics_to_log, restore_weights
from atrous.training.schedules import rate_factor
from atrous.training.signals import StopSignals
from atrous.training.tracking import check_trackers, log_samples, log_to_trackers, sample_sheet, start_trackers
from atrous.training.types import (
    MemoryShortageError,
    NonFiniteLossError,
    OnMessage,
    OnStep,
    OnValidation,
    Progress,
    Result,
    Stopped,
)
from atrous.training.validation import validate

RECENT = 20
"""Steps over which speed is measured."""


class _AllOutputs(nn.Module):
    """A model as the loss needs it: its forward gives all outputs."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Output]:
        return self.model.outputs(images)


class Trainer:
    """One training: its parts and its loop. Nothing is written before :meth:`begin` or :meth:`restore`."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        train_data: Dataset | None = None,
        val_data: Dataset | None = None,
        augmentation: Augment | None = None,
        fresh: bool = True,
        on_step: OnStep | None = None,
        on_validation: OnValidation | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        self.recipe, self.out = recipe, out
        self.on_step, self.on_validation, self.on_message = on_step, on_validation, on_message
        self.folder = RunFolder(recipe, out)
        options = recipe.training
        check_trackers(recipe.log)
        self.accelerator = make_accelerator(out, recipe.log.trackers)
        self.device, self.world = self.accelerator.device, self.accelerator.num_processes
        self.main = self.accelerator.is_main_process
        self.train_set, self.val_set = open_data(recipe, train_data, val_data)
        self.augmentation = augmentation
        torch.manual_seed(options.seed)
        self.model = build_model(recipe if fresh else _without_pretrained(recipe), self.train_set)
        norms_of = {"frozen": self.model.backbone, "all_frozen": self.model}.get(options.batch_norm)
        self.frozen = freeze(self.model, options.freeze_until_stride, norms_of, options.only)
        for norm in batch_norms(self.model) if options.batch_norm_momentum else []:
            norm.momentum = options.batch_norm_momentum
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if options.ema else None
        self.optimizer = build_optimizer(recipe, self.model)
        self.network: nn.Module = self.accelerator.prepare_model(_AllOutputs(self.model))
        loss = recipe.loss
        terms = make_terms(loss.name, loss.options)
        self.loss = SegmentationLoss(None, terms, loss.hard_share, loss.hard_below, loss.resolution)
        self.signals = StopSignals()
        self.per_epoch = steps_per_epoch(len(self.train_set), options.batch_size)
        self.steps = options.steps or max(1, round(options.epochs * self.per_epoch))
        self.any_labels = False
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    @cached_property
    def presence(self) -> NDArray[np.bool_] | None:
        """Which classes each training image shows, if the recipe balances classes."""
        return find_presence(self.recipe, self.train_set)

    @property
    def validated_model(self) -> SegmentationModel:
        """The model that is validated and saved: with averaged weights if the recipe asks for them."""
        return self.ema or self.model

    @property
    def input_size(self) -> str:
        """The size of a training image, for messages."""
        if self.augmentation is None:
            return self.recipe.input_size
        return f"the size of {getattr(self.augmentation, '__name__', type(self.augmentation).__name__)}"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other runs out of the folder, and close what this run has opened."""
        with self.folder.locked() if self.main else nullcontext():
            try:
                with self.signals:
                    yield
            finally:
                for tracker in self.accelerator.trackers:
                    tracker.finish()
                # Nothing may hold the process group when it is closed: what is freed after it (DDP's reducer) joins
                # gloo's threads while they wait for Python's lock, which it holds, and the process never ends.
                del self.network
                self.accelerator.free_memory()

    def begin(self) -> int:
        """Start the run in its folder; returns the first step."""
        weights = self.class_weights()
        if self.main:
            self.folder.begin(self.world)
        self.introduce(weights)
        start_trackers(self.accelerator, self.recipe, 0)
        self.accelerator.wait_for_everyone()
        return 0

    def restore(self, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> int:
        """Return to a saved state; returns the next step.

        Raises:
            RecipeError: the run was started with another recipe.
            ResumeError: the state is of another network.
        """
        began = check_recipe(facts["recipe"], f"the recipe saved in {self.out}")
        if changes := began.differences(self.recipe):
            raise RecipeError(f"the run in {self.out} was started with another recipe; differing: {', '.join(changes)}")
        restore_weights(self.model, tensors["model"], self.out)
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        if self.ema:
            restore_weights(self.ema, tensors["ema"], self.out)
        step = int(facts["step"])
        self.folder.best, self.folder.saved_step = facts["best"], step
        if self.main:
            self.folder.log.cut(step)
        self.introduce(facts["class_weights"])
        self._message(
            "already finished: nothing left to train" if step >= self.steps else f"resuming after step {step}"
        )
        start_trackers(self.accelerator, self.recipe, step)
        return step

    def train(self, start: int) -> Result:
        """Train from a step to the end.

        Raises:
            RecipeError: every pixel of a whole epoch is ignored.
            NonFiniteLossError, MemoryShortageError, SaveError, Stopped: as :func:`atrous.training.stages.train`.
        """
        every = max(1, round(self.recipe.training.validate_every * self.per_epoch))
        stream = self.batches(start)
        self.make_trainable()
        for step in range(start, self.steps):
            try:
                progress, stop = self.step(step, stream)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise self._worker_died(error) from error
            if not self.any_labels and step + 1 - start >= self.per_epoch:
                raise RecipeError(
                    f"nothing to learn: in a whole epoch of {dataset_name(self.train_set)} "
                    f"({len(self.train_set)} images) every pixel was ignored (255); look at the masks"
                )
            self._log(progress)
            due = (step + 1) % every == 0 or step + 1 == self.steps
            if due or stop or (self.main and self.folder.is_save_due()):
                self._save(step + 1, self._validate() if due else None, models=due)
            if stop and step + 1 < self.steps:
                raise Stopped(f"stopped after step {step + 1} of {self.steps}; --resume continues from there")
        self.accelerator.wait_for_everyone()  # every process starts the next stage from what the first one wrote
        return Result(self.out / "best", self.out / "last", self.folder.best)

    def make_trainable(self) -> None:
        """Put everything except frozen modules in train mode."""
        self.network.train()
        for module in self.frozen:
            module.eval()

    def batches(self, start: int) -> Iterator[Batch]:
        """The share of this process in the batches, from a step on."""
        recipe = self.recipe
        own = self.augmentation or recipe.augment.function
        single = recipe.training.batch_size == recipe.training.accumulate * self.world
        if recipe.augment.crop == "whole" and not own and not single:
            raise RecipeError(
                'augment.crop = "whole": images differ in size, so each part of a batch holds one: '
                f"training.accumulate = batch_size / processes = {recipe.training.batch_size // self.world}"
            )
        fill = tuple(255 * share for share in self.model.preprocessing.mean)
        try:
            return batches(
                self.train_set,
                self.augmentation or make_augmentation(recipe, self.train_set, fill, self.presence),
                batch_size=recipe.training.batch_size,
                parts=recipe.training.accumulate,
                seed=recipe.training.seed,
                workers=recipe.data.workers,
                start=start,
                rank=self.accelerator.process_index,
                world=self.world,
                pin_memory=self.device.type == "cuda",
                weights=sampling_weights(recipe, self.presence),
            )
        except ValueError as error:
            raise RecipeError(f"training.batch_size: {error}") from error

    def step(self, step: int, stream: Iterator[Batch]) -> tuple[Progress, bool]:
        """One optimizer step; returns the progress, and whether a signal to stop was received.

        Raises:
            NonFiniteLossError: the loss or the gradient is not finite; no weight has changed.
            MemoryShortageError: the batch does not fit into the device's memory.
        """
        options = self.recipe
        # Random numbers depend on the step alone, so a resumed run draws what an uninterrupted one would.
        torch.manual_seed(options.training.seed * 1_000_003 + step * self.world + self.accelerator.process_index)
        factor = rate_factor(options.schedule, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        begin = time.perf_counter()
        parts = [next(stream) for _ in range(options.training.accumulate)]
        read = time.perf_counter()
        try:
            sums = self._backward(parts, step)
        except torch.OutOfMemoryError as error:
            raise MemoryShortageError(out_of_memory(self.recipe, self.device, self.world, self.input_size)) from error
        loss, size, labelled_parts, stops, norm = self._fetch(torch.cat([sums, self._gradient_norm()[None]]))
        if options.loss.reduction == "mean" and size:
            loss /= size
        self.any_labels = self.any_labels or labelled_parts > 0
        if not (math.isfinite(loss) and math.isfinite(norm)):
            names = gather_object([name for part in parts for name in part.names])
            folder = draw_diverged(self.out, step + 1, parts, self.train_set.label_set)
            raise NonFiniteLossError(diverged(step + 1, loss, norm, names, folder))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema and options.training.ema:
            update_ema(self.ema, self.model, options.training.ema, step)
        self.recent.append((read - begin, time.perf_counter() - begin))
        waited, took = (sum(times) for times in zip(*self.recent, strict=True))
        speed = options.training.batch_size * len(self.recent) / took
        lr = options.optimizer.lr * factor
        return Progress(step + 1, self.steps, loss, lr, norm, speed, waited / took), stops > 0

    def _worker_died(self, error: RuntimeError) -> Stopped | MemoryShortageError:
        """The error to raise when a process that reads images has died; torch reports it at any point of a step."""
        if self.signals.received or "Terminated" in str(error):  # all processes were ended at once
            return Stopped(stopped_with_workers(self.folder.saved_step))
        return MemoryShortageError(worker_died(error, self.recipe.data.workers))

    def _backward(self, parts: list[Batch], step: int) -> Tensor:
        """Compute the gradients of a step's loss, over all its parts and all processes.

        Returns:
            Float32 ``(4,)`` on the device: the sum of the losses, the number of pixels (or their weights) that it is
            over, how many parts had any, and how many processes received a signal to stop.
        """
        options = self.recipe.loss
        easy = max(0.0, 1 - step / options.hard_warmup) if options.hard_warmup else 0.0
        sums = torch.zeros(4, device=self.device)
        for number, part in enumerate(parts, 1):
            with self.accelerator.no_sync(self.network) if number < len(parts) else nullcontext():
                loss, size = self._loss(part, easy)
                self.accelerator.backward(loss)
            labelled = any((mask != IGNORE).any() for mask in (part.masks, *part.auxiliary_masks.values()))
            sums += torch.stack([loss.detach(), size, torch.full_like(loss, labelled), torch.zeros_like(loss)])
        sums[3].fill_(self.signals.received)
        reduced: Tensor = self.accelerator.reduce(sums, "sum")
        # DDP has averaged the gradients over the processes; what is wanted is their sum, divided once.
        if options.reduction == "mean":
            torch._foreach_mul_(self._gradients(), self.world / (reduced[1] + (reduced[1] == 0)))
        elif self.world > 1:
            torch._foreach_mul_(self._gradients(), self.world)
        return reduced

    def _fetch(self, numbers: Tensor) -> list[float]:
        """Copy numbers from the device: the only point of a step at which the host waits for it."""
        found: list[float] = numbers.tolist()
        return found

    def _loss(self, part: Batch, easy: float) -> tuple[Tensor, Tensor]:
        raw = part.images.to(self.device, non_blocking=True)
        masks = {MAIN: part.masks, **part.auxiliary_masks}
        labels = {name: mask.to(self.device, non_blocking=True) for name, mask in masks.items()}
        images = self.model.preprocess(raw).contiguous(memory_format=torch.channels_last)
        low = self.recipe.training.precision == "bfloat16"
        together = self.world > 1 and self.recipe.training.batch_norm == "synchronised"
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=low),
            SynchronisedBatchNorm() if together else nullcontext(),
        ):
            outputs = self.network(images)
        return self.loss(outputs, labels, easy)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    def _gradient_norm(self) -> Tensor:
        """The norm ``()`` of all gradients, which are clipped if the recipe says so."""
        norm = torch.nn.utils.get_total_norm(self._gradients())
        if limit := self.recipe.optimizer.clip_norm:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def class_weights(self) -> list[float] | None:
        """The class weights of the recipe, counted if need be by the first process; None for equal weights."""
        rule = self.recipe.loss.class_weights
        if isinstance(rule, list) or rule == "none":
            return given_class_weights(self.recipe, self.train_set)
        found: list[list[float] | None] = [None]
        if self.main:
            self._message(f"counting the classes of {dataset_name(self.train_set)} for the class weights")
            found = [count_class_weights(rule, self.train_set)]
        if self.world > 1:
            broadcast_object_list(found)
        return found[0]

    def introduce(self, class_weights: list[float] | None) -> None:
        """Report what is trained and on what, and pass the class weights to the loss."""
        sets, hardware = (self.train_set, self.val_set), (self.device, self.world)
        length = self.steps, self.per_epoch
        for line in introduction(self.recipe, self.model, sets, hardware, *length, self.input_size, class_weights):
            self._message(line)
        if class_weights is not None:
            self.loss = replace(self.loss, class_weights=torch.tensor(class_weights, device=self.device))

    def _message(self, line: str) -> None:
        if self.main and self.on_message:
            self.on_message(line)

    def _log(self, progress: Progress) -> None:
        if not self.main:
            return
        if progress.step % self.recipe.log.every == 0 or progress.step == progress.steps:
            facts = {key: value for key, value in asdict(progress).items() if key != "steps"}
            with self.folder.writing(progress.step):
                self.folder.log.add({"time": round(time.time(), 1), **facts})
            log_to_trackers(self.accelerator, progress.step, facts, "train")
        if self.on_step:
            self.on_step(progress)

    def _save(self, step: int, evaluation: Evaluation | None, *, models: bool) -> None:
        """Save the state that resuming needs; before it, if asked for, the last model and the best one."""
        if not self.main:
            return
        with self.folder.writing(step):
            if models:
                self.folder.save_models(step, self.validated_model, evaluation)
                if evaluation:
                    log_to_trackers(self.accelerator, step, metrics_to_log(evaluation), "validation")
                if evaluation and self.val_set and self.recipe.log.samples:
                    sheet = sample_sheet(self.validated_model, self.val_set, self.recipe.log.samples)
                    log_samples(self.accelerator, self.out, step, sheet)
            tensors = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
            if self.ema:
                tensors["ema"] = self.ema.state_dict()
            self.folder.save_state(step, tensors, self.loss.class_weights)
        if evaluation and self.on_validation:
            self.on_validation(step, evaluation)

    def _validate(self) -> Evaluation | None:
        if self.val_set is None:
            return None
        return validate(self.validated_model, self.val_set, self.accelerator, self.recipe.training.precision)


def _without_pretrained(recipe: Recipe) -> Recipe:
    """The recipe without pretrained weights, which need not be fetched when a saved state replaces them."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"pretrained": False})})
