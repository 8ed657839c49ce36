"""Searching the CRF of a model on some images, and evaluating it on held-out ones (DeepLab, arXiv 1412.7062, §5; arXiv
1606.00915, §4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atrous.crf.search import search
from atrous.crf.settings import Settings, to_card
from atrous.data.dataset import Dataset, Sample, dataset_name
from atrous.errors import InputError
from atrous.evaluation.classes import check_classes
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.report import aligned, percent
from atrous.evaluation.trimap import trimap
from atrous.inference.prepare import prepared
from atrous.inference.test_time import Inference, View
from atrous.models.base import SegmentationModel

TRIMAP = 5
"""Width in pixels of the band along boundaries that is evaluated beside the whole image."""


@dataclass(frozen=True)
class Accuracy:
    """Mean IoU over whole images, and over the pixels near boundaries."""

    mean_iou: float
    near_boundaries: float


@dataclass(frozen=True)
class CRFSearch:
    """The result of :func:`search_crf`.

    Args:
        settings: the best on the searched images.
        searched_without: accuracy on the searched images, without a CRF.
        searched_with: accuracy on the searched images, with the best CRF.
        held_out_without: accuracy on the held-out images, without a CRF.
        held_out_with: accuracy on the held-out images, with the best CRF.
        images: how many images were searched on, and how many held out.
        tried: mean IoU on the searched images for every setting that was tried.
        data: name of the dataset.
    """

    settings: Settings
    searched_without: Accuracy
    searched_with: Accuracy
    held_out_without: Accuracy
    held_out_with: Accuracy
    images: tuple[int, int]
    tried: dict[Settings, float]
    data: str

    @property
    def helps(self) -> bool:
        """Whether the CRF raises mean IoU on the held-out images."""
        return self.held_out_with.mean_iou > self.held_out_without.mean_iou

    def to_card(self) -> dict[str, Any]:
        """What is stored with the model."""
        without, with_crf = self.held_out_without, self.held_out_with
        return to_card(
            self.settings,
            helps=self.helps,
            data=self.data,
            images=list(self.images),
            mean_iou=[without.mean_iou, with_crf.mean_iou],
            **{f"mean_iou_within_{TRIMAP}_pixels": [without.near_boundaries, with_crf.near_boundaries]},
        )

    def text(self) -> str:
        """Format the result as a table and a verdict."""
        rows = [["", "images", "mean IoU %", f"within {TRIMAP} px of a boundary %"]]
        for name, count, accuracy in (
            ("searched, without CRF", self.images[0], self.searched_without),
            ("searched, with CRF", self.images[0], self.searched_with),
            ("held out, without CRF", self.images[1], self.held_out_without),
            ("held out, with CRF", self.images[1], self.held_out_with),
        ):
            rows.append([name, str(count), percent(accuracy.mean_iou), percent(accuracy.near_boundaries)])
        verdict = (
            "It helps on held-out images."
            if self.helps
            else "It does not help on held-out images: use this model without a CRF."
        )
        return f"best of {len(self.tried)}: {self.settings}\n\n{aligned(rows)}\n\n{verdict}"


@dataclass(frozen=True)
class _Example:
    """An image with the network's output for it, coarse and in half precision, which is half a megabyte."""

    image: Tensor
    views: list[View]
    sample: Sample


def search_crf(
    model: SegmentationModel,
    dataset: Dataset,
    *,
    images: int = 100,
    start: Settings | None = None,
    inference: Inference | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_try: Callable[[Settings, float], None] | None = None,
) -> CRFSearch:
    """Search a CRF for a model, and evaluate it on images held out from the search.

    The network runs once over each image; each setting that is tried runs the CRF over the searched ones.

    Args:
        model: the model.
        dataset: a validation split of at least two images, which the model was not trained on.
        images: how many to search on, spread evenly over the split; at most half of it.
        start: the smoothness kernel and the iterations, which are not searched.
        inference: how the network sees an image; its CRF is the one that is searched.
        progress: called with the number of images the network has seen, and their total.
        on_try: called with each setting that was tried and its mean IoU.

    Raises:
        InputError: fewer than two images, none to search on, or classes that differ from the model's.
    """
    if len(dataset) < 2:
        raise InputError(
            f"{dataset_name(dataset)} has {len(dataset)} image(s); a CRF needs some to search on and others held out"
        )
    if images < 1:
        raise InputError(f"a CRF is searched on 1 image or more, not {images}")
    check_classes(model.label_set, dataset.label_set)
    plain = replace(inference or Inference(), crf=None)
    examples = _run_network(model, dataset, plain, progress)
    chosen = searched_images(len(dataset), images)
    searched = [example for index, example in enumerate(examples) if index in chosen]
    held_out = [example for index, example in enumerate(examples) if index not in chosen]
    tried: dict[Settings, Accuracy] = {}

    def mean_iou(settings: Settings) -> float:
        tried[settings] = _evaluate(model, searched, replace(plain, crf=settings.build()))
        if on_try:
            on_try(settings, tried[settings].mean_iou)
        return tried[settings].mean_iou

    best, mean_ious = search(mean_iou, start)
    return CRFSearch(
        best,
        searched_without=_evaluate(model, searched, plain),
        searched_with=tried[best],
        held_out_without=_evaluate(model, held_out, plain),
        held_out_with=_evaluate(model, held_out, replace(plain, crf=best.build())),
        images=(len(searched), len(held_out)),
        tried=mean_ious,
        data=dataset_name(dataset),
    )


def searched_images(total: int, images: int) -> set[int]:
    """The indices of ``total`` images that a search uses: spread evenly, at most half of them."""
    count = max(1, min(images, total // 2))
    return set(np.linspace(0, total - 1, count).round().astype(int).tolist())


def _run_network(
    model: SegmentationModel, dataset: Dataset, inference: Inference, progress: Callable[[int, int], None] | None
) -> list[_Example]:
    examples = []
    with prepared(model) as (ready, where):
        for index in range(len(dataset)):
            sample = dataset[index]
            image = torch.from_numpy(np.ascontiguousarray(sample.image)).permute(2, 0, 1)[None].to(where)
            views = inference.views(ready, ready.preprocess(image))
            kept = [View(view.logits.half(), view.grid, view.mirrored) for view in views]
            examples.append(_Example(image, kept, sample))
            if progress:
                progress(index + 1, len(dataset))
    return examples


@torch.inference_mode()
def _evaluate(model: SegmentationModel, examples: Sequence[_Example], inference: Inference) -> Accuracy:
    whole, near = ConfusionMatrix(model.label_set), ConfusionMatrix(model.label_set)
    for example in examples:
        views = [View(view.logits.float(), view.grid, view.mirrored) for view in example.views]
        labels = inference.labels(views, example.image)
        whole.update(example.sample.mask, labels)
        near.update(trimap(example.sample.mask, TRIMAP), labels)
    return Accuracy(whole.metrics().mean_iou, near.metrics().mean_iou)
