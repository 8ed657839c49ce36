"""The engine: one training loop for one or many processes, through Hugging Face Accelerate."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from atrous.data.datasets import PairedDataset, open_dataset
from atrous.data.loading import Batch, batches, steps_per_epoch
from atrous.data.transforms import Augmentation
from atrous.evaluation.evaluate import Evaluation, evaluate
from atrous.models.base import SegmentationModel
from atrous.provenance import provenance
from atrous.training.building import build_model, build_optimizer, freeze, update_average
from atrous.training.checkpoint import (
    Log,
    find_state,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    restore_weights,
    save_state,
)
from atrous.training.losses import cross_entropy, judged_pixels
from atrous.training.recipe import Recipe, RecipeError, check_recipe
from atrous.training.schedules import poly


class NonFiniteLossError(FloatingPointError):
    """A loss that is no number any more; the message names the step and the pictures."""


@dataclass(frozen=True)
class Progress:
    """What a run says of itself after a step."""

    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float


@dataclass(frozen=True)
class Result:
    """The end of a run: where the best and the last model lie, and the best one's mean IoU if there is validation."""

    best: Path
    last: Path
    mean_iou: float | None


Report = Callable[[Progress], None]
Judge = Callable[[int, Evaluation], None]
LOG_EVERY = 10
"""Steps between two lines of the log."""


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    on_step: Report | None = None,
    on_validation: Judge | None = None,
) -> Result:
    """Train a model as a recipe says.

    Args:
        recipe: the whole training.
        out: folder of the run: ``best/`` and ``last/`` are model folders, ``state/`` is what resuming needs,
            ``log.jsonl`` has a line for each tenth step and each validation, ``run.json`` what repeating the run needs.
        resume: go on with the run in ``out``; it must have the same recipe.
        on_step: called after each step in the main process.
        on_validation: called with the step and its evaluation.

    Raises:
        RecipeError: the recipe does not fit the data, or ``out`` holds a run; said before anything is trained.
        ResumeError: nothing to resume, or something else.
        NonFiniteLossError: the training has diverged.
    """
    out = Path(out)
    if not resume and find_state(out):
        raise RecipeError(f"{out} already holds a run: go on with it (--resume), or give another folder (--out)")
    saved = load_state(out) if resume else None
    run = _Run(recipe, out, on_step, on_validation, fresh=not resume)
    return run.train(run.restore(*saved) if saved else run.begin())


class _Run:
    def __init__(
        self, recipe: Recipe, out: Path, on_step: Report | None, on_validation: Judge | None, fresh: bool
    ) -> None:
        self.recipe, self.out, self.on_step, self.on_validation = recipe, out, on_step, on_validation
        self.log = Log(out)
        self.provenance = provenance()  # now, since the code on disk may change while the run goes on
        options = recipe.training
        # Precision is the recipe's, by autocast in _loss: Accelerate keeps its own for the life of the process.
        self.accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        self.train_set, self.val_set = _open(recipe)
        torch.manual_seed(options.seed)
        self.model = build_model(recipe if fresh else _untrained(recipe), self.train_set)
        self.frozen = freeze(self.model, options.freeze_until_stride, options.freeze_batch_norm)
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if options.ema else None
        self.optimizer = build_optimizer(recipe, self.model)
        self.network: nn.Module = self.accelerator.prepare_model(self.model)
        self.per_epoch = steps_per_epoch(len(self.train_set), options.batch_size)
        self.steps = max(1, round(options.epochs * self.per_epoch))
        self.best: float | None = None
        self.judged_so_far = False

    @property
    def judged(self) -> SegmentationModel:
        """The weights that are validated and kept."""
        return self.ema or self.model

    def begin(self) -> int:
        """Open the run's folder; returns the first step."""
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            self.log.cut(-1)  # of a run that died before it kept anything
            facts = {"recipe": self.recipe.model_dump(mode="json"), **self.provenance}
            (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        self.accelerator.wait_for_everyone()
        return 0

    def restore(self, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> int:
        """Go back to where a state was kept; returns the next step."""
        before, now = _fixed(check_recipe(facts["recipe"], f"the recipe kept in {self.out}")), _fixed(self.recipe)
        if differing := [key for key in now if before[key] != now[key]]:
            changes = ", ".join(f"{key} ({before[key]!r}, now {now[key]!r})" for key in differing)
            raise RecipeError(f"the run in {self.out} was started with another recipe; differing: {changes}")
        restore_weights(self.model, tensors["model"], self.out)
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        if self.ema:
            restore_weights(self.ema, tensors["ema"], self.out)
        self.best = facts["best"]
        if self.accelerator.is_main_process:
            self.log.cut(int(facts["step"]))
        return int(facts["step"])

    def train(self, start: int) -> Result:
        every = max(1, round(self.recipe.training.validate_every * self.per_epoch))
        stream = self._batches(start)
        self.network.train()
        for module in self.frozen:
            module.eval()
        for step in range(start, self.steps):
            begin = time.perf_counter()
            loss, lr = self._step(step, stream)
            speed = self.recipe.training.batch_size / (time.perf_counter() - begin)
            if not self.judged_so_far and step + 1 - start >= self.per_epoch:
                raise RecipeError(
                    f"nothing to learn: in a whole epoch of {self.train_set.name} "
                    f"({len(self.train_set)} pictures) every pixel was ignored (255); look at the masks"
                )
            if self.accelerator.is_main_process:
                self._tell(Progress(step + 1, self.steps, loss, lr, speed))
                if (step + 1) % every == 0 or step + 1 == self.steps:
                    self._keep(step + 1)
        return Result(self.out / "best", self.out / "last", self.best)

    def _batches(self, start: int) -> Iterator[Batch]:
        recipe = self.recipe
        red, green, blue = (255 * share for share in self.model.preprocessing.mean)
        try:
            return batches(
                self.train_set,
                Augmentation(**recipe.augment.model_dump(), fill=(red, green, blue)),
                batch_size=recipe.training.batch_size,
                parts=recipe.training.accumulate,
                seed=recipe.training.seed,
                workers=recipe.data.workers,
                start=start,
                rank=self.accelerator.process_index,
                world=self.accelerator.num_processes,
                pin_memory=self.device.type == "cuda",
            )
        except ValueError as error:
            raise RecipeError(f"training.batch_size: {error}") from error

    def _step(self, step: int, stream: Iterator[Batch]) -> tuple[float, float]:
        options, world = self.recipe, self.accelerator.num_processes
        # Random numbers depend on the step alone, so a resumed run draws what an uninterrupted one would.
        torch.manual_seed(options.training.seed * 1_000_003 + step * world + self.accelerator.process_index)
        factor = poly(step, self.steps, options.schedule.power, options.schedule.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        parts = [next(stream) for _ in range(options.training.accumulate)]
        loss = self._backward(parts)
        if not math.isfinite(loss):
            names = ", ".join(name for part in parts for name in part.names)
            raise NonFiniteLossError(
                f"the loss is {loss} at step {step + 1}, on {names}; try a smaller optimizer.lr, or optimizer.clip_norm"
            )
        if options.optimizer.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), options.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema and options.training.ema:
            update_average(self.ema, self.model, options.training.ema, step)
        return loss, options.optimizer.lr * factor

    def _backward(self, parts: list[Batch]) -> float:
        """Add up the gradients of a step's parts; returns the loss of the whole step, over all processes.

        Each part is divided by the judged pixels of the whole step, so that its parts and processes change nothing.
        """
        pixels = torch.stack([judged_pixels(part.masks) for part in parts]).sum().to(self.device)
        pixels = self.accelerator.reduce(pixels, "sum")
        self.judged_so_far = self.judged_so_far or bool(pixels)
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self.accelerator.no_sync(self.network) if number < len(parts) else nullcontext():
                loss = self._loss(part, pixels)
                # Gradients are averaged over the processes, and this is a sum.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            total += loss.detach()
        return float(self.accelerator.reduce(total, "sum"))

    def _loss(self, part: Batch, pixels: Tensor) -> Tensor:
        photos = part.photos.to(self.device, non_blocking=True)
        labels = part.masks.to(self.device, non_blocking=True)
        images = self.model.preprocess(photos).contiguous(memory_format=torch.channels_last)
        low = self.recipe.training.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            logits = self.network(images)
        return cross_entropy(logits, labels, pixels)

    def _tell(self, progress: Progress) -> None:
        if progress.step % LOG_EVERY == 0 or progress.step == progress.steps:
            facts = {key: value for key, value in asdict(progress).items() if key != "steps"}
            self.log.add({"time": round(time.time(), 1), **facts})
        if self.on_step:
            self.on_step(progress)

    def _keep(self, step: int) -> None:
        """Validate; keep the last model, the best one, and the state that resuming needs."""
        evaluation = self._validate()
        metrics: dict[str, Any] = {"step": step}
        if evaluation:
            metrics |= {k: v for k, v in evaluation.to_dict().items() if k not in ("confusion", "model")}
        mean_iou = metrics.get("mean_iou") or 0.0
        better = evaluation is None or self.best is None or mean_iou > self.best
        if evaluation and better:
            self.best = mean_iou
        facts = {k: v for k, v in metrics.items() if k not in ("classes", "absent")}
        self.log.add({"time": round(time.time(), 1), **facts})
        recipe = self.recipe.model_dump(mode="json")
        for folder in ("last", "best") if better else ("last",):
            self.judged.save(self.out / folder, metrics=metrics, recipe=recipe, provenance=self.provenance)
        tensors = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        if self.ema:
            tensors["ema"] = self.ema.state_dict()
        save_state(self.out, tensors, {"step": step, "best": self.best, "recipe": recipe})
        if evaluation and self.on_validation:
            self.on_validation(step, evaluation)

    def _validate(self) -> Evaluation | None:
        if self.val_set is None:
            return None
        return evaluate(self.judged, self.val_set, precision=self.recipe.training.precision)


def _open(recipe: Recipe) -> tuple[PairedDataset, PairedDataset | None]:
    data = recipe.data
    train_set = open_dataset(data.train, data.train_split)
    if data.val_split == "none":
        return train_set, None
    val_set = open_dataset(data.val or data.train, data.val_split)
    if val_set.labels.names != train_set.labels.names:
        raise RecipeError(
            f"data.val has other classes ({', '.join(val_set.labels.names)}) "
            f"than data.train ({', '.join(train_set.labels.names)})"
        )
    return train_set, val_set


def _untrained(recipe: Recipe) -> Recipe:
    """The recipe without a download of weights that the run's own replace at once."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"pretrained": False})})


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """What a run's numbers depend on, by section and key."""
    sections = recipe.model_dump(mode="json", exclude={"description": True, "data": {"workers"}})
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
