"""One training: its parts and its loop, for one or many processes, through Hugging Face Accelerate."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.augment import Augment
from atrous.data.dataset import Dataset, dataset_name
from atrous.data.loading import Batch, batches, steps_per_epoch
from atrous.models.base import Preprocessing, SegmentationModel
from atrous.training.best import Best
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
from atrous.training.gradients import Gradients
from atrous.training.messages import (
    diverged,
    draw_diverged,
    introduction,
    out_of_memory,
    stopped_with_workers,
    validated,
    worker_died,
)
from atrous.training.objective import SegmentationLoss, make_terms
from atrous.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from atrous.training.parallel import make_accelerator
from atrous.training.recipe import Recipe, RecipeError, check_recipe
from atrous.training.run_folder import RunFolder, restore_weights
from atrous.training.samples import sample_sheet
from atrous.training.schedules import rate_factor
from atrous.training.signals import StopSignals
from atrous.training.tracking import check_trackers, log_samples, log_to_trackers, start_trackers
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
from atrous.training.validation import Validation, Weights, validate

RECENT = 20
"""Steps over which speed is measured."""


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
        saved: Mapping[str, Any] | None = None,
        download: bool = True,
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
        if options.patience and self.val_set is None:
            raise RecipeError("training.patience: without validation data nothing tells when to stop")
        self.augmentation = augmentation
        torch.manual_seed(options.seed)
        built = _without_pretrained(recipe) if saved else recipe
        known = Preprocessing.from_dict(saved["preprocessing"]) if saved and "preprocessing" in saved else None
        self.model = build_model(built, self.train_set, None if saved else self._message, download, known)
        norms_of = {"frozen": self.model.backbone, "all_frozen": self.model}.get(options.batch_norm)
        self.frozen = freeze(self.model, options.freeze_until_stride, norms_of, options.only)
        for norm in batch_norms(self.model) if options.batch_norm_momentum else []:
            norm.momentum = options.batch_norm_momentum
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if options.ema else None
        self.optimizer = build_optimizer(recipe, self.model)
        loss = recipe.loss
        terms = make_terms(loss.name, loss.options)
        whole = SegmentationLoss(None, terms, loss.hard_share, loss.hard_below, loss.resolution)
        self.gradients = Gradients(recipe, self.model, self.optimizer, whole, self.accelerator)
        self.signals = StopSignals()
        self.per_epoch = steps_per_epoch(len(self.train_set), options.batch_size)
        self.steps = options.steps or max(1, round(options.epochs * self.per_epoch))
        self.any_labels = False
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self.recent_losses: deque[float] = deque(maxlen=RECENT)

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
                del self.gradients
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
        self.folder.best, self.folder.saved_step = Best(**facts["best"]), step
        if self.main:
            self.folder.log.cut(step)
        self.introduce(facts["class_weights"])
        self._message(
            "already finished: nothing left to train"
            if step >= self.steps or self._is_out_of_patience()
            else f"resuming after step {step}"
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
        for step in range(start, start if self._is_out_of_patience() else self.steps):
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
            if self._is_out_of_patience():
                self._message(self._patience_message(step + 1))
                break
            if stop and step + 1 < self.steps:
                raise Stopped(f"stopped after step {step + 1} of {self.steps}; --resume continues from there")
        self.accelerator.wait_for_everyone()  # every process starts the next stage from what the first one wrote
        best = self.folder.best
        return Result(self.out / "best", self.out / "last", best.mean_iou, best.metric, best.value)

    def _is_out_of_patience(self) -> bool:
        patience = self.recipe.training.patience
        return patience is not None and self.folder.best.stale >= patience

    def _patience_message(self, step: int) -> str:
        best = self.folder.best
        return (
            f"stopped early after step {step} of {self.steps}: {best.stale} validations in a row without a better "
            f"{best.metric} than that of step {best.step} (training.patience)"
        )

    def make_trainable(self) -> None:
        """Put everything except frozen modules in train mode."""
        self.gradients.network.train()
        for module in self.frozen:
            module.eval()

    def batches(self, start: int, workers: int | None = None) -> Iterator[Batch]:
        """The share of this process in the batches, from a step on; read by the recipe's workers if not given."""
        recipe = self.recipe
        own = self.augmentation or recipe.augment.function
        single = recipe.training.batch_size == recipe.training.accumulate * self.world
        if recipe.augment.crop == "whole" and not own and not single:
            raise RecipeError(
                'augment.crop = "whole": images differ in size, so each part of a batch holds one: '
                f"training.accumulate = batch_size / processes = {recipe.training.batch_size // self.world}"
            )
        fill = self.model.preprocessing.fill
        try:
            return batches(
                self.train_set,
                self.augmentation or make_augmentation(recipe, self.train_set, fill, self.presence),
                batch_size=recipe.training.batch_size,
                parts=recipe.training.accumulate,
                seed=recipe.training.seed,
                workers=recipe.data.workers if workers is None else workers,
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
        loss, norm, stop = self.update(step, parts, waited=time.perf_counter() - begin)
        waited, took = (sum(times) for times in zip(*self.recent, strict=True))
        speed = options.training.batch_size * len(self.recent) / took
        lr = options.optimizer.lr * factor
        return Progress(step + 1, self.steps, loss, lr, norm, speed, waited / took), stop

    def update(self, step: int, parts: list[Batch], waited: float = 0.0) -> tuple[float, float, bool]:
        """Update the weights by the gradients on a batch; returns loss, gradient norm, and whether to stop.

        Raises:
            NonFiniteLossError, MemoryShortageError: as for :meth:`step`.
        """
        options, begin = self.recipe, time.perf_counter()
        try:
            sums = self.gradients.compute(parts, step, self.signals.received)
        except torch.OutOfMemoryError as error:
            raise MemoryShortageError(out_of_memory(self.recipe, self.device, self.world, self.input_size)) from error
        loss, size, labelled_parts, stops, norm = self._fetch(torch.cat([sums, self.gradients.norm()[None]]))
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
        self.recent.append((waited, waited + time.perf_counter() - begin))
        self.recent_losses.append(loss)
        return loss, norm, stops > 0

    def _worker_died(self, error: RuntimeError) -> Stopped | MemoryShortageError:
        """The error to raise when a process that reads images has died; torch reports it at any point of a step."""
        if self.signals.received or "Terminated" in str(error):  # all processes were ended at once
            return Stopped(stopped_with_workers(self.folder.saved_step))
        return MemoryShortageError(worker_died(error, self.recipe.data.workers))

    def _fetch(self, numbers: Tensor) -> list[float]:
        """Copy numbers from the device: the only point of a step at which the host waits for it."""
        found: list[float] = numbers.tolist()
        return found

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
            weights = torch.tensor(class_weights, device=self.device)
            self.gradients.loss = replace(self.gradients.loss, class_weights=weights)

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

    def _save(self, step: int, validation: Validation | None, *, models: bool) -> None:
        """Save the state that resuming needs; before it, if asked for, the last model and the best one."""
        is_best = validation is not None and self.folder.best.update(step, validation)  # in every process
        if not self.main:
            return
        with self.folder.writing(step):
            if models:
                self.folder.save_models(step, self.validated_model, validation, is_best)
            if validation:
                log_to_trackers(self.accelerator, step, validation.to_dict(), "validation")
                self._draw_samples(step)
            tensors = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
            if self.ema:
                tensors["ema"] = self.ema.state_dict()
            facts = {"preprocessing": self.model.preprocessing.to_dict()}
            self.folder.save_state(step, tensors, self.gradients.loss.class_weights, facts)
        if validation:
            self._message(validated(step, validation, self.recipe.training.ema, self.recent_losses))
            if self.on_validation:
                self.on_validation(step, validation)

    def _draw_samples(self, step: int) -> None:
        if self.val_set and self.recipe.log.samples:
            averaged = " of the averaged weights" if self.ema else ""
            caption = f"prediction{averaged} at step {step}"
            sheet = sample_sheet(self.validated_model, self.val_set, self.recipe.log.samples, caption)
            log_samples(self.accelerator, self.out, step, sheet)

    def _validate(self) -> Validation | None:
        if self.val_set is None:
            return None
        weights: Weights = "ema" if self.ema else "trained"
        precision, loss = self.gradients.precision, self.gradients.loss
        return validate(self.validated_model, self.val_set, self.accelerator, precision, loss, weights)


def _without_pretrained(recipe: Recipe) -> Recipe:
    """The recipe without pretrained weights, which need not be fetched when a saved state replaces them."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"pretrained": False})})
