"""Finding the CRF of a model: searched on some images, judged on others (DeepLab v1 §5, v2 §4.1; SPEC §5.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atrous.crf.tune import Settings, search, to_card
from atrous.data.dataset import Dataset, Sample
from atrous.errors import InputError
from atrous.evaluation.evaluate import check_classes
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.report import aligned, percent
from atrous.evaluation.trimap import trimap
from atrous.inference.test_time import Inference, View
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import evaluating

TRIMAP = 5
"""The band along boundaries that is judged beside the whole image, in pixels."""
Judged = tuple[float, float]
"""Mean IoU, and mean IoU near boundaries."""


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Args:
        settings: the best on the images of the search.
        before: of the images that were kept out of the search, without a CRF.
        after: of the same, with it.
        searched: the same two of the images of the search.
        images: how many were searched on, and how many judged.
        tried: mean IoU on the images of the search, of every setting that was tried.
        data: name of the data set.
    """

    settings: Settings
    before: Judged
    after: Judged
    searched: tuple[Judged, Judged]
    images: tuple[int, int]
    tried: dict[Settings, float]
    data: str

    @property
    def helps(self) -> bool:
        """Whether the CRF raises mean IoU on images it was not tuned on."""
        return self.after[0] > self.before[0]

    def to_card(self) -> dict[str, Any]:
        """What is kept with the model."""
        return to_card(
            self.settings,
            helps=self.helps,
            data=self.data,
            images=list(self.images),
            mean_iou=[self.before[0], self.after[0]],
            **{f"mean_iou_within_{TRIMAP}_pixels": [self.before[1], self.after[1]]},
        )

    def text(self) -> str:
        """What was found, as a table and a sentence."""
        rows = [["", "images", "mean IoU %", f"within {TRIMAP} px of a boundary %"]]
        for name, count, judged in (
            ("searched, without CRF", self.images[0], self.searched[0]),
            ("searched, with CRF", self.images[0], self.searched[1]),
            ("others, without CRF", self.images[1], self.before),
            ("others, with CRF", self.images[1], self.after),
        ):
            rows.append([name, str(count), *(percent(score) for score in judged)])
        verdict = (
            "It helps on images it was not tuned on."
            if self.helps
            else "It does not help on images it was not tuned on: use this model without a CRF."
        )
        return f"best of {len(self.tried)}: {self.settings}\n\n{aligned(rows)}\n\n{verdict}"


@dataclass(frozen=True)
class _Example:
    """An image with what the network said of it, at network resolution and in half precision: half a megabyte."""

    image: Tensor
    views: list[View]
    sample: Sample


def tune_crf(
    model: SegmentationModel,
    dataset: Dataset,
    *,
    images: int = 100,
    start: Settings | None = None,
    inference: Inference | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_try: Callable[[Settings, float], None] | None = None,
) -> Tuning:
    """Search a CRF for a model and judge it on images that were kept out of the search.

    The network runs once over each image; each setting that is tried runs the CRF over the searched ones.

    Args:
        model: the model.
        dataset: a validation split of at least two images, not what the model was trained on.
        images: how many to search on, spread evenly over the split; at most half of it.
        start: the smoothness kernel and the iterations, which are not searched.
        inference: how the network looks at an image.
        progress: called with the number of images the network has seen, and their total.
        on_try: called with each setting that was tried and its mean IoU.

    Raises:
        ValueError: fewer than two images, none to search on, or classes that are not the model's.
    """
    if len(dataset) < 2:
        raise InputError(f"{dataset.name} has {len(dataset)} image(s); a CRF is tuned on some and judged on others")
    if images < 1:
        raise InputError(f"a CRF is searched on 1 image or more, not {images}")
    check_classes(model.label_set, dataset.label_set)
    chosen = searched_on(len(dataset), images)
    inference = inference or Inference()
    examples = _look(model, dataset, inference, progress)
    searched = [example for index, example in enumerate(examples) if index in chosen]
    others = [example for index, example in enumerate(examples) if index not in chosen]

    def score(settings: Settings) -> float:
        found = _judge(model, searched, replace(inference, crf=settings.build()))
        tried[settings] = found
        if on_try:
            on_try(settings, found[0])
        return found[0]

    tried: dict[Settings, Judged] = {}
    best, scores = search(score, start)
    refined = replace(inference, crf=best.build())
    return Tuning(
        best,
        _judge(model, others, inference),
        _judge(model, others, refined),
        (_judge(model, searched, inference), tried[best]),
        (len(searched), len(others)),
        scores,
        dataset.name,
    )


def searched_on(total: int, images: int) -> set[int]:
    """Which images of ``total`` a search takes: spread evenly, at most half of them."""
    count = max(1, min(images, total // 2))
    return set(np.linspace(0, total - 1, count).round().astype(int).tolist())


@torch.inference_mode()
def _look(
    model: SegmentationModel, dataset: Dataset, inference: Inference, progress: Callable[[int, int], None] | None
) -> list[_Example]:
    where = next(model.parameters()).device
    examples = []
    with evaluating(model):
        for index in range(len(dataset)):
            sample = dataset[index]
            image = torch.from_numpy(np.ascontiguousarray(sample.image)).permute(2, 0, 1)[None].to(where)
            views = inference.views(model, model.preprocess(image))
            kept = [View(view.logits.half(), view.grid, view.mirrored) for view in views]
            examples.append(_Example(image, kept, sample))
            if progress:
                progress(index + 1, len(dataset))
    return examples


@torch.inference_mode()
def _judge(model: SegmentationModel, examples: Sequence[_Example], inference: Inference) -> Judged:
    whole, near = ConfusionMatrix(model.label_set), ConfusionMatrix(model.label_set)
    for example in examples:
        views = [View(view.logits.float(), view.grid, view.mirrored) for view in example.views]
        labels = inference.labels(views, example.image)
        whole.update(example.sample.mask, labels)
        near.update(trimap(example.sample.mask, TRIMAP), labels)
    return whole.metrics().mean_iou, near.metrics().mean_iou
