"""Evaluating a model on a dataset: every image at its own size, one confusion matrix over all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.dataset import Dataset, Sample, check_sample, dataset_extras, dataset_name, require_dataset, surrounded
from atrous.errors import DatasetError, InputError
from atrous.evaluation.classes import label_table
from atrous.evaluation.details import Details
from atrous.evaluation.metrics import ConfusionMatrix, Metrics
from atrous.evaluation.trimap import trimap as near_boundaries
from atrous.inference.exported import ExportedPredictor
from atrous.inference.prepare import Precision, prepared, require_model
from atrous.inference.test_time import Inference, View
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel
from atrous.runtime.exported import ExportedModel

FREQUENT = 10
"""In a large split, a class is frequent if at least so many images show it."""


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Args:
        model: name of the model.
        data: name of the dataset.
        confusion: all counts, with the label set of the dataset.
        images: number of images evaluated.
        seconds: elapsed time, including reading.
        precision: what the network computed in.
        device: where it computed.
        trimap: the counts near boundaries alone, by the width of the band in pixels.
        heads: the counts of heads with label sets of their own, by name.
        details: borders, objects, calibration and the counts of each image, if ``details=True`` asked for them.
    """

    model: str
    data: str
    confusion: ConfusionMatrix
    images: int
    seconds: float
    precision: Precision
    device: str
    trimap: dict[int, ConfusionMatrix] = field(default_factory=dict)
    heads: dict[str, ConfusionMatrix] = field(default_factory=dict)
    details: Details | None = None

    @property
    def label_set(self) -> LabelSet:
        return self.confusion.label_set

    @property
    def metrics(self) -> Metrics:
        return self.confusion.metrics()

    @property
    def min_images(self) -> int:
        """A class is frequent if at least so many images show it: a tenth of them, at most 10, as in the table."""
        return min(FREQUENT, math.ceil(self.images / 10))

    def to_dict(self, min_images: int | None = None) -> dict[str, Any]:
        """Everything as JSON values; undefined numbers are None.

        Args:
            min_images: the frequent classes are those in at least so many images; :attr:`min_images` by default.
        """
        min_images = self.min_images if min_images is None else min_images
        metrics = self.metrics
        details = {"details": self.details.to_dict()} if self.details else {}
        return details | {
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "precision": self.precision,
            "device": self.device,
            "pixel_accuracy": _defined(metrics.pixel_accuracy),
            "mean_accuracy": _defined(metrics.mean_accuracy),
            "mean_iou": _defined(metrics.mean_iou),
            "mean_iou_of_true_classes": _defined(metrics.mean_iou_of_true_classes),
            "frequency_weighted_iou": _defined(metrics.frequency_weighted_iou),
            "mean_iou_of_frequent_classes": {
                "min_images": min_images,
                "classes": list(self.confusion.frequent_classes(min_images)),
                "mean_iou": _defined(self.confusion.mean_iou_over(min_images)),
            },
            "classes": [
                {"name": name, "images": int(images), "iou": _defined(iou), "accuracy": _defined(accuracy)}
                for name, images, iou, accuracy in zip(
                    self.label_set.names, self.confusion.images, metrics.iou, metrics.accuracy, strict=True
                )
            ],
            "trimap": [
                {"width": width, "mean_iou": _defined(near.mean_iou), "pixel_accuracy": _defined(near.pixel_accuracy)}
                for width, near in ((width, band.metrics()) for width, band in self.trimap.items())
            ],
            "heads": {
                name: {
                    "pixel_accuracy": _defined(head.pixel_accuracy),
                    "mean_accuracy": _defined(head.mean_accuracy),
                    "mean_iou": _defined(head.mean_iou),
                }
                for name, head in ((name, confusion.metrics()) for name, confusion in self.heads.items())
            },
            "absent": list(metrics.absent),
            "confusion": self.confusion.matrix.tolist(),
        }


def evaluate(
    model: SegmentationModel | ExportedModel,
    dataset: Dataset,
    *,
    device: torch.device | str | None = None,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
    part: tuple[int, int] = (0, 1),
    trimap: Sequence[int] = (),
    inference: Inference | None = None,
    details: bool = False,
    model_classes: str | Path | None = None,
) -> Evaluation:
    """Evaluate a model on every image of a dataset, at the image's own size.

    The network runs once per view of an image, and the next image is read meanwhile.

    Args:
        model: the model; it is put into eval mode, and the mode of each of its modules is restored afterwards. An
            exported one runs in its own runtime, without ``details``.
        dataset: images and masks; its classes must be the model's. Heads of the model with masks of their own in the
            dataset are evaluated too.
        device: where to compute, and where the model is moved; its current device by default.
        precision: "bfloat16" runs the network under autocast: faster where the hardware supports it, less exact.
        progress: called with the number of finished images and their total after each image.
        part: index and number of processes that share the work: this one counts every n-th image, and the counts of
            all are to be added.
        trimap: also count the pixels near boundaries, in bands of these widths in pixels (such as 1, 3, 5, 10).
        inference: how an image becomes labels: scales, mirror images, a CRF; a single view by default.
        details: also find boundary IoU, objects, calibration and the counts of each image
            (:class:`atrous.evaluation.details.Details`), from which intervals follow.
        model_classes: a class table from the model's classes to the data's, where they differ: a CSV or TOML file, or
            ``coco-to-voc`` (docs/data.md). Labels are mapped after they were chosen; the
            confidence in one is the sum of the probabilities of the classes that became it.

    Returns:
        The counts, and what was evaluated. No logits are kept.

    Raises:
        InputError: not a dataset, an empty one, one of other classes than the model's, or a band narrower than a pixel.

    Example:
        >>> import atrous, numpy as np
        >>> pairs = [(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8))]
        >>> data = atrous.wrap(pairs, ("ground", "sky"))
        >>> model = atrous.create_model("deeplabv3", backbone="test_resnet", label_set=("ground", "sky"))
        >>> 0 <= atrous.evaluate(model, data).metrics.pixel_accuracy <= 1
        True
    """
    if any(width < 1 for width in trimap):
        raise InputError(f"a band along boundaries is 1 or more pixels wide, not {min(trimap)}")
    require_model(model)
    require_dataset(dataset)
    if not len(dataset):
        raise InputError(f"there is no image to evaluate in {dataset_name(dataset)}")
    table = label_table(model.label_set, dataset.label_set, model_classes)
    if details and isinstance(model, ExportedModel):
        raise InputError(f"details are found from logits, and {model.file} gives none: use the model's own folder")
    inference = inference or Inference()
    more, keeping = (Details(dataset.label_set), _KeepingViews(**vars(inference))) if details else (None, None)
    confusion = ConfusionMatrix(dataset.label_set)
    bands = {width: ConfusionMatrix(dataset.label_set) for width in trimap}
    heads = {name: ConfusionMatrix(label_set) for name, label_set in _evaluated_heads(model, dataset).items()}
    indices = range(len(dataset))[part[0] :: part[1]]
    begin = time.perf_counter()
    with _labelling(model, keeping or inference, tuple(heads), device, precision) as (label, where):
        for done, sample in enumerate(_read_ahead(dataset, indices), 1):
            _check_taken(model, sample, dataset)
            labels = label(np.ascontiguousarray(sample.image))
            if table is not None:
                labels["main"] = table.to(labels["main"].device)[labels["main"].long()]
            counted = ConfusionMatrix(dataset.label_set)
            counted.update(sample.mask, labels["main"])
            confusion.merge(counted)
            if more and keeping:
                more.update(sample.name, sample.mask, labels["main"].cpu().numpy(), counted)
                more.update_calibration(sample.mask, keeping, keeping.kept, table)
            for width, band in bands.items():
                band.update(near_boundaries(sample.mask, width), labels["main"])
            for name, counts in heads.items():
                counts.update(sample.auxiliary_masks[name], labels[name])
            if progress:
                progress(done, len(indices))
    seconds = time.perf_counter() - begin
    return Evaluation(
        model.name, dataset_name(dataset), confusion, len(dataset), seconds, precision, where, bands, heads, more
    )


@contextmanager
def _labelling(
    model: SegmentationModel | ExportedModel,
    inference: Inference,
    heads: tuple[str, ...],
    device: torch.device | str | None,
    precision: Precision,
) -> Iterator[tuple[Callable[[NDArray[np.uint8]], dict[str, Tensor]], str]]:
    """What finds the labels of an image ``(H, W, C)`` for each head, and where it computes."""
    if isinstance(model, ExportedModel):
        predictor = ExportedPredictor(model, device=device, precision=precision)
        yield (
            lambda image: {"main": torch.from_numpy(predictor.labels(image[None], inference)[0])},
            f"cpu ({model.runtime})",
        )
        return
    with prepared(model, device=device, precision=precision) as (ready, where):
        yield (
            lambda image: inference.label_heads(ready, torch.from_numpy(image).permute(2, 0, 1)[None].to(where), heads),
            str(where),
        )


@dataclass(frozen=True)
class _KeepingViews(Inference):
    """An inference that keeps the views of the last image."""

    kept: list[View] = field(default_factory=list)

    def labels(self, views: Sequence[View], image: Tensor) -> Tensor:
        self.kept[:] = views
        return super().labels(views, image)


def _evaluated_heads(model: SegmentationModel | ExportedModel, dataset: Dataset) -> dict[str, LabelSet]:
    """The heads beside ``main`` that the dataset has masks for, and their label sets."""
    if isinstance(model, ExportedModel):
        return {}
    masks = dataset_extras(dataset).masks
    return {name: masks[name].form.label_set for name in model.auxiliary_heads if name in masks} if masks else {}


def _read_ahead(dataset: Dataset, indices: Sequence[int]) -> Iterator[Sample]:
    """Yield samples in order; the next one is read while one is used."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = [reader.submit(_read, dataset, index) for index in indices[:1]]
        for following in indices[1:]:
            sample = coming.pop().result()
            coming.append(reader.submit(_read, dataset, following))
            yield sample
        yield from (last.result() for last in coming)


def _read(dataset: Dataset, index: int) -> Sample:
    sample = surrounded(dataset, index)
    try:
        check_sample(sample, dataset_extras(dataset).images.dtype)
    except DatasetError as error:
        raise DatasetError(f"{dataset_name(dataset)}, item {index}: {error}") from None
    return sample


def _check_taken(model: SegmentationModel | ExportedModel, sample: Sample, dataset: Dataset) -> None:
    """Refuse images of other channels or another type than the model was trained on."""
    images = dataset_extras(dataset).form
    found = f"{sample.image.shape[2]} channels of {sample.image.dtype}"
    channels, dtype = (
        (model.in_channels, "uint8")
        if isinstance(model, ExportedModel)
        else (model.backbone.in_channels, model.preprocessing.dtype)
    )
    if sample.image.shape[2] != channels or sample.image.dtype != dtype:
        raise InputError(
            f"{dataset_name(dataset)}, {sample.name}: {found}, but {model.name} takes {channels} channels of {dtype}; "
            f"evaluate it on such images, or train a model on {images}"
        )


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
