"""The engine: one training loop for one or many processes, through Hugging Face Accelerate."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from atrous.data.datasets import PairedDataset, open_dataset
from atrous.data.loading import Batch, batches, steps_per_epoch
from atrous.data.transforms import Augmentation
from atrous.evaluation.evaluate import Evaluation, evaluate
from atrous.models.backbones import Backbone
from atrous.models.base import SegmentationModel, create_model
from atrous.models.geometry import evaluating
from atrous.models.zoo import load
from atrous.provenance import provenance
from atrous.training.checkpoint import load_state, optimizer_tensors, restore_optimizer, restore_weights, save_state
from atrous.training.losses import cross_entropy
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.schedules import poly


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
    """The end of a run: where the best and the last model lie, and what the best one reached (none without validation)."""

    best: Path
    last: Path
    mean_iou: float | None


Report = Callable[[Progress], None]
Judge = Callable[[int, Evaluation], None]


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
        out: folder of the run: ``best/`` and ``last/`` are model folders, ``state/`` is what resuming needs, ``log.jsonl`` has a line for each
            reported step and validation, ``run.json`` what is needed to repeat the run.
        resume: go on with the run in ``out``; it must have the same recipe.
        on_step: called after each step in the main process.
        on_validation: called with the step and its evaluation.

    Raises:
        RecipeError: the recipe does not fit the data or the machine; said before anything is trained.
        ResumeError: nothing to resume, or something else.
    """
    return _Run(recipe, Path(out), on_step, on_validation).train(resume)


class _Run:
    def __init__(self, recipe: Recipe, out: Path, on_step: Report | None, on_validation: Judge | None) -> None:
        self.recipe, self.out, self.on_step, self.on_validation = recipe, out, on_step, on_validation
        options = recipe.training
        self.accelerator = Accelerator(
            mixed_precision="bf16" if options.precision == "bfloat16" else "no", cpu=not torch.cuda.is_available()
        )
        self.train_set, self.val_set = _open(recipe)
        torch.manual_seed(options.seed)
        self.model = build_model(recipe, self.train_set)
        self.frozen = freeze(self.model, options.freeze_until_stride, options.freeze_batch_norm)
        self.model.to(self.accelerator.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if options.ema else None
        self.optimizer = build_optimizer(recipe, self.model)
        self.network: nn.Module = self.accelerator.prepare_model(self.model)
        self.per_epoch = steps_per_epoch(len(self.train_set), options.batch_size)
        self.steps = max(1, round(options.epochs * self.per_epoch))
        self.best: float | None = None

    @property
    def judged(self) -> SegmentationModel:
        """The weights that are validated and kept."""
        return self.ema or self.model

    def train(self, resume: bool) -> Result:
        start = self._restore() if resume else self._begin()
        every = max(1, round(self.recipe.training.validate_every * self.per_epoch))
        stream = self._batches(start)
        self._to_training()
        for step in range(start, self.steps):
            begin = time.perf_counter()
            loss, lr = self._step(step, stream)
            speed = self.recipe.training.batch_size / (time.perf_counter() - begin)
            self._tell(Progress(step + 1, self.steps, loss, lr, speed))
            if (step + 1) % every == 0 or step + 1 == self.steps:
                self._keep(step + 1)
                self._to_training()
        return Result(self.out / "best", self.out / "last", self.best)

    def _step(self, step: int, stream: Iterator[Batch]) -> tuple[float, float]:
        options = self.recipe
        # Random numbers depend on the step alone, so a resumed run draws what an uninterrupted one would.
        torch.manual_seed(options.training.seed * 1_000_003 + step * self.accelerator.num_processes + self.accelerator.process_index)
        factor = poly(step, self.steps, options.schedule.power, options.schedule.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        parts = options.training.accumulate
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(parts):
            batch = next(stream)
            photos = batch.photos.to(self.accelerator.device, non_blocking=True)
            labels = batch.masks.to(self.accelerator.device, non_blocking=True)
            images = self.model.preprocess(photos).contiguous(memory_format=torch.channels_last)
            with self.accelerator.no_sync(self.network) if part < parts - 1 else _nothing():
                loss = cross_entropy(self.network(images), labels) / parts
                self.accelerator.backward(loss)
            total += loss.detach()
        if options.optimizer.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), options.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema and options.training.ema:
            update_average(self.ema, self.model, options.training.ema, step)
        return float(total), options.optimizer.lr * factor

    def _batches(self, start: int) -> Iterator[Batch]:
        recipe = self.recipe
        augmentation = Augmentation(
            **recipe.augment.model_dump(), fill=tuple(255 * m for m in self.model.preprocessing.mean)  # type: ignore[arg-type]
        )
        try:
            return batches(
                self.train_set,
                augmentation,
                batch_size=recipe.training.batch_size,
                parts=recipe.training.accumulate,
                seed=recipe.training.seed,
                workers=recipe.data.workers,
                start=start,
                rank=self.accelerator.process_index,
                world=self.accelerator.num_processes,
                pin_memory=self.accelerator.device.type == "cuda",
            )
        except ValueError as error:
            raise RecipeError(f"training.batch_size: {error}") from error

    def _to_training(self) -> None:
        self.network.train()
        for module in self.frozen:
            module.eval()

    def _keep(self, step: int) -> None:
        """Validate, keep the last model and the best one, and the state that resuming needs."""
        if not self.accelerator.is_main_process:
            return
        metrics: dict[str, Any] = {"step": step}
        better = True
        if self.val_set:
            evaluation = evaluate(self.judged, self.val_set, precision=self.recipe.training.precision)
            metrics |= {k: v for k, v in evaluation.to_dict().items() if k not in ("confusion", "model")}
            mean_iou = metrics["mean_iou"] or 0.0
            better = self.best is None or mean_iou > self.best
            self.best = mean_iou if better else self.best
            if self.on_validation:
                self.on_validation(step, evaluation)
        self._log({k: v for k, v in metrics.items() if k not in ("classes", "absent")})
        notes = {"metrics": metrics, "recipe": self.recipe.model_dump(mode="json"), "provenance": provenance()}
        self.judged.save(self.out / "last", **notes)
        if better:
            self.judged.save(self.out / "best", **notes)
        tensors = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        if self.ema:
            tensors["ema"] = self.ema.state_dict()
        save_state(self.out, tensors, {"step": step, "best": self.best, "recipe": self.recipe.model_dump(mode="json")})

    def _begin(self) -> int:
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            if (self.out / "state").exists():
                raise RecipeError(f"{self.out} already holds a run: go on with it (--resume), or give another folder (--out)")
            facts = {"recipe": self.recipe.model_dump(mode="json"), **provenance()}
            (self.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        self.accelerator.wait_for_everyone()
        return 0

    def _restore(self) -> int:
        tensors, facts = load_state(self.out)
        now = self.recipe.model_dump(mode="json")
        differing = [k for k in now if k not in ("description",) and now[k] != facts["recipe"].get(k)]
        if differing:
            raise RecipeError(f"the run in {self.out} was started with another recipe; differing sections: {', '.join(differing)}")
        restore_weights(self.model, tensors["model"], self.out)
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        if self.ema:
            restore_weights(self.ema, tensors["ema"], self.out)
        self.best = facts["best"]
        return int(facts["step"])

    def _tell(self, progress: Progress) -> None:
        if not self.accelerator.is_main_process:
            return
        if not math.isfinite(progress.loss):
            raise FloatingPointError(f"the loss is {progress.loss} at step {progress.step}; a smaller learning rate or clip_norm may help")
        if progress.step % 10 == 0 or progress.step == progress.steps:
            self._log({k: getattr(progress, k) for k in ("step", "loss", "lr", "images_per_second")})
        if self.on_step:
            self.on_step(progress)

    def _log(self, facts: dict[str, Any]) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **facts}) + "\n")


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _open(recipe: Recipe) -> tuple[PairedDataset, PairedDataset | None]:
    data = recipe.data
    train_set = open_dataset(data.train, data.train_split)
    if data.val_split in (None, "none"):
        return train_set, None
    val_set = open_dataset(data.val or data.train, str(data.val_split))
    if val_set.labels.names != train_set.labels.names:
        raise RecipeError("data.val has other classes than data.train")
    return train_set, val_set


def build_model(recipe: Recipe, dataset: PairedDataset) -> SegmentationModel:
    """The recipe's network for a dataset's classes, in train mode."""
    section = recipe.model
    try:
        model = create_model(
            section.name,
            backbone=section.backbone,
            labels=dataset.labels,
            output_stride=section.output_stride,
            pretrained=section.pretrained if not section.start_from else False,
            **section.options,
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
    if section.start_from:
        source = load(section.start_from).state_dict()
        restore_weights(model, source, Path(section.start_from))
    return model.train()


def freeze(model: SegmentationModel, until_stride: int, batch_norm: bool) -> list[nn.Module]:
    """Stop training the backbone's first layers, its batch norms, or both.

    Returns:
        The modules that must stay in eval mode.
    """
    frozen: list[nn.Module] = []
    if until_stride:
        upstream = _upstream(model.backbone, until_stride)
        for module in model.backbone.modules():
            if any(id(p) in upstream for p in module.parameters(recurse=False)):
                frozen.append(module)
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
    if batch_norm:
        for module in model.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                frozen.append(module)
                module.requires_grad_(False)
    return frozen


def _upstream(backbone: Backbone, stride: int) -> set[int]:
    """The parameters that the deepest feature of a stride depends on, found by asking for its gradient."""
    parameters = list(backbone.parameters())
    side = backbone.fitting_size(64)
    device = parameters[0].device
    with evaluating(backbone), torch.enable_grad():
        feature = backbone(torch.zeros(1, backbone.in_channels, side, side, device=device))[backbone.feature_at(stride)]
        gradients = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
    return {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}


def build_optimizer(recipe: Recipe, model: SegmentationModel) -> torch.optim.Optimizer:
    """SGD or AdamW over four groups: backbone and head, each with decay (weights) and without (norms, biases)."""
    options = recipe.optimizer
    backbone = {id(p) for p in model.backbone.parameters()}
    backbone_lr = options.lr if options.backbone_lr is None else options.backbone_lr
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in backbone, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "base_lr": backbone_lr if in_backbone else options.lr,
            "lr": backbone_lr if in_backbone else options.lr,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    if options.name == "sgd":
        return torch.optim.SGD(settings, momentum=options.momentum, fused=True)
    return torch.optim.AdamW(settings, betas=(options.momentum, 0.999), fused=True)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average of the weights towards the model's; early steps count more, so that it soon forgets the start."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    theirs = model.state_dict()
    floats = [(a, theirs[k]) for k, a in average.state_dict().items() if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [t for _, t in floats], share)
    for key, value in average.state_dict().items():
        if not value.is_floating_point():
            value.copy_(theirs[key])
