"""Validation during a training, shared by its processes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from atrous.data.dataset import Dataset, Sample, dataset_extras, dataset_name, surrounded
from atrous.evaluation.evaluate import Evaluation, evaluate
from atrous.inference.prepare import Precision
from atrous.inference.test_time import Inference, View
from atrous.labels import LabelSet
from atrous.models.base import Output, SegmentationModel
from atrous.training.objective import MAIN, SegmentationLoss
from atrous.training.parallel import share_buffers

Weights = Literal["trained", "ema"]
"""Which weights were validated: those that are trained, or their exponential moving average."""
LOWER_IS_BETTER = ("validation_loss",)


@dataclass(frozen=True)
class Validation:
    """One validation.

    Args:
        evaluation: all counts.
        loss: of the main output, averaged over the labelled positions; None if there are none.
        weights: which weights were validated.
    """

    evaluation: Evaluation
    loss: float | None
    weights: Weights

    def metric(self, name: str) -> float | None:
        """``validation_loss``, or a metric of the evaluation; None if undefined, since every pixel is ignored."""
        value = self.loss if name == "validation_loss" else getattr(self.evaluation.metrics, name)
        return None if value is None or not math.isfinite(value) else float(value)

    def to_dict(self) -> dict[str, Any]:
        """What a run logs, as JSON values; undefined numbers are None."""
        found = {key: value for key, value in self.evaluation.to_dict().items() if key not in ("confusion", "model")}
        return {"weights": self.weights, "validation_loss": self.metric("validation_loss"), **found}


def validate(
    model: SegmentationModel,
    dataset: Dataset,
    accelerator: Accelerator,
    precision: Precision,
    loss: SegmentationLoss,
    weights: Weights,
) -> Validation:
    """Evaluate a model: each process on a share of the images, then the counts of all are added.

    Args:
        model: with the same weights in every process; buffers are taken from the first one.
        dataset: the whole of it, in every process.
        accelerator: of the training.
        precision: of the network's arithmetic.
        loss: of the training. For the validation loss, the logits of the main output are compared with the labels at
            their own positions, so that no logits of the image's size are needed; all pixels count, hard or easy.
        weights: which weights the model holds, for reports.
    """
    world = accelerator.num_processes
    if world > 1:
        share_buffers([model])
    everywhere = replace(loss, resolution="network", hard_share=1.0, hard_below=None)
    masks = _Masks(dataset)
    inference = _MeasuredInference(loss=everywhere, masks=masks.waiting)
    part = accelerator.process_index, world
    evaluation = evaluate(model, masks, precision=precision, part=part, inference=inference)
    if world > 1:
        for confusion in (evaluation.confusion, *evaluation.heads.values()):
            counts = torch.from_numpy(np.vstack([confusion.matrix, confusion.images])).to(accelerator.device)
            counts = accelerator.reduce(counts, "sum").cpu().numpy()
            confusion.matrix, confusion.images = counts[:-1], counts[-1]
    total, size = accelerator.reduce(sum(inference.sums, torch.zeros(2, device=accelerator.device)), "sum").tolist()
    return Validation(evaluation, total / size if size else None, weights)


class _Masks:
    """A dataset that keeps the masks it has given out, in order."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.label_set: LabelSet = dataset.label_set
        self.name, self.extras = dataset_name(dataset), dataset_extras(dataset)
        self.waiting: deque[Tensor] = deque()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = surrounded(self.dataset, index)
        self.waiting.append(torch.from_numpy(np.ascontiguousarray(sample.mask)))
        return sample


@dataclass(frozen=True)
class _MeasuredInference(Inference):
    """Inference that also adds up the loss.

    Args:
        loss: what is added up.
        masks: of the images, in the order in which they are evaluated.
        sums: the loss of each image and what it is to be divided by, float32 ``(2,)``.
    """

    loss: SegmentationLoss = field(default_factory=SegmentationLoss)
    masks: deque[Tensor] = field(default_factory=deque)
    sums: list[Tensor] = field(default_factory=list)

    def labels(self, views: Sequence[View], image: Tensor) -> Tensor:
        """The labels of an image, whose loss is noted."""
        output = Output(MAIN, views[0].logits, views[0].grid)
        labels = self.masks.popleft()[None].to(image.device)
        with torch.autocast(image.device.type, enabled=False):
            self.sums.append(torch.stack(list(self.loss([output], {MAIN: labels}))).float())
        return super().labels(views, image)
