"""The gradients of a step: over all parts of its batch, and over all processes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from atrous.data.loading import Batch
from atrous.labels import IGNORE, WIDE_IGNORE
from atrous.models.base import Output, SegmentationModel
from atrous.ops.devices import computes_bfloat16
from atrous.training.distillation import Teacher
from atrous.training.losses import PixelSum
from atrous.training.objective import MAIN, SegmentationLoss
from atrous.training.parallel import SynchronisedBatchNorm
from atrous.training.recipe import Recipe, RecipeError


def precision_on(device: torch.device, recipe: Recipe) -> Literal["float32", "bfloat16"]:
    """What a network is trained in on a device, by the recipe's ``training.precision``."""
    if recipe.training.precision == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    return recipe.training.precision


class _AllOutputs(nn.Module):
    """A model as the loss needs it: its forward gives all outputs."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Output]:
        return self.model.outputs(images)


class Gradients:
    """Computes the gradients of a model's parameters.

    Args:
        recipe: of the training.
        model: that is trained, on its device.
        optimizer: of its parameters.
        loss: what is minimised; it may be replaced at any time.
        accelerator: of the training.

    Raises:
        RecipeError: the recipe's teacher doesn't know all classes.
        CheckpointError: the teacher can't be read.

    Attributes:
        network: the model in train mode as Accelerate has prepared it; its forward gives all outputs.
        precision: what it computes in.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: SegmentationModel,
        optimizer: torch.optim.Optimizer,
        loss: SegmentationLoss,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.model, self.optimizer, self.loss = recipe, model, optimizer, loss
        self.accelerator = accelerator
        self.device, self.world = accelerator.device, accelerator.num_processes
        self.precision = precision_on(self.device, recipe)
        self.network: nn.Module = accelerator.prepare_model(_AllOutputs(model))
        self.teacher: Teacher | None = None
        if recipe.distillation.teacher:
            try:
                self.teacher = Teacher(recipe.distillation, model.label_set, self.device)
            except ValueError as error:
                raise RecipeError(f"distillation.teacher: {error}") from error

    def compute(self, parts: list[Batch], step: int, stop: bool) -> Tensor:
        """Compute the gradients of a step's loss.

        Args:
            parts: of the batch, those of this process.
            step: number of the step.
            stop: whether this process has received a signal to stop.

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
            labelled = any((mask != _ignore_of(mask)).any() for mask in (part.masks, *part.auxiliary_masks.values()))
            sums += torch.stack([loss.detach(), size, torch.full_like(loss, labelled), torch.zeros_like(loss)])
        sums[3].fill_(stop)
        reduced: Tensor = self.accelerator.reduce(sums, "sum")
        # DDP has averaged the gradients over the processes; what is wanted is their sum, divided once.
        if options.reduction == "mean":
            torch._foreach_mul_(self._gradients(), self.world / (reduced[1] + (reduced[1] == 0)))
        elif self.world > 1:
            torch._foreach_mul_(self._gradients(), self.world)
        return reduced

    def norm(self) -> Tensor:
        """The norm ``()`` of all gradients, which are clipped if the recipe says so."""
        norm = torch.nn.utils.get_total_norm(self._gradients())
        if limit := self.recipe.optimizer.clip_norm:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _loss(self, part: Batch, easy: float) -> PixelSum:
        raw = part.images.to(self.device, non_blocking=True)
        masks = {MAIN: part.masks, **part.auxiliary_masks}
        labels = {name: mask.to(self.device, non_blocking=True) for name, mask in masks.items()}
        images = self.model.preprocess(raw).contiguous(memory_format=torch.channels_last)
        low = self.precision == "bfloat16"
        together = self.world > 1 and self.recipe.training.batch_norm == "synchronised"
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=low),
            SynchronisedBatchNorm() if together else nullcontext(),
        ):
            outputs = self.network(images)
        loss = self.loss(outputs, labels, easy)
        return self.teacher.add_to(loss, outputs[0], raw, labels[MAIN], low) if self.teacher else loss

    def _gradients(self) -> list[Tensor]:
        return [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]


def _ignore_of(masks: Tensor) -> int:
    """The value of ignored pixels in the masks of a batch."""
    return IGNORE if masks.dtype == torch.uint8 else WIDE_IGNORE
