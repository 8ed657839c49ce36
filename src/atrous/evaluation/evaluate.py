"""Judging a model on a data set: every image at its own size, one confusion matrix over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from atrous.data.dataset import Dataset, Sample
from atrous.errors import InputError
from atrous.evaluation.metrics import ConfusionMatrix, Metrics
from atrous.evaluation.trimap import trimap as near_boundaries
from atrous.inference.test_time import Inference
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import evaluating
from atrous.ops.labelmap.op import logits_to_labels

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Args:
        model: name of the model.
        data: name of the data set.
        confusion: all counts, with the label set of the data.
        images: how many images were judged.
        seconds: how long it took, reading included.
        precision: in which the network computed.
        device: on which it computed.
        trimap: the counts near boundaries alone, by the width of the band in pixels.
        further: the counts of further heads, by name.
    """

    model: str
    data: str
    confusion: ConfusionMatrix
    images: int
    seconds: float
    precision: Precision
    device: str
    trimap: dict[int, ConfusionMatrix] = field(default_factory=dict)
    further: dict[str, ConfusionMatrix] = field(default_factory=dict)

    @property
    def label_set(self) -> LabelSet:
        return self.confusion.label_set

    @property
    def metrics(self) -> Metrics:
        return self.confusion.metrics()

    def to_dict(self, min_images: int = 10) -> dict[str, Any]:
        """Everything as JSON knows it; a number that is not defined is None."""
        metrics = self.metrics
        return {
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
            "further": {
                name: {
                    "pixel_accuracy": _defined(judged.pixel_accuracy),
                    "mean_accuracy": _defined(judged.mean_accuracy),
                    "mean_iou": _defined(judged.mean_iou),
                }
                for name, judged in ((name, confusion.metrics()) for name, confusion in self.further.items())
            },
            "absent": list(metrics.absent),
            "confusion": self.confusion.matrix.tolist(),
        }


def evaluate(
    model: SegmentationModel,
    dataset: Dataset,
    *,
    device: torch.device | str | None = None,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
    part: tuple[int, int] = (0, 1),
    trimap: Sequence[int] = (),
    inference: Inference | None = None,
) -> Evaluation:
    """Judge a model on every image of a data set, at the image's own size.

    The next image is read while the network works.

    Args:
        model: the model; it is in eval mode meanwhile, and each of its modules gets its own mode back.
        dataset: images and masks; its classes must be the model's. Heads with further masks there are judged too.
        device: where to compute, and where the model is moved; where it is already when left out.
        precision: "bfloat16" runs the network under autocast: faster where the hardware has it, and slightly different.
        progress: called with the number of images done and their total after each image.
        part: number of this process and how many there are: it counts every so-manieth image alone, and the counts
            of all are to be added.
        trimap: count the pixels near boundaries apart too, in bands of these widths (1, 3, 5, 10 pixels, say).
        inference: how an image becomes labels: scales, mirror images, a CRF; one look when left out.

    Returns:
        The counts and what was judged. No scores are kept.

    Raises:
        ValueError: the classes of data and model differ, the data set is empty, or a band has no width.
    """
    if any(width < 1 for width in trimap):
        raise InputError(f"a band along boundaries is 1 or more pixels wide, not {min(trimap)}")
    if not len(dataset):
        raise InputError(f"there is no image to judge in {dataset.name}")
    check_classes(model.label_set, dataset.label_set)
    masks = dataset.extras.masks
    heads = model.config["options"].get("heads") or {} if masks else {}
    where = torch.device(device) if device is not None else next(model.parameters()).device
    model.to(where).to(memory_format=torch.channels_last)
    inference = inference or Inference()
    confusion = ConfusionMatrix(dataset.label_set)
    bands = {width: ConfusionMatrix(dataset.label_set) for width in trimap}
    further = {name: ConfusionMatrix(masks[name].form.label_set) for name in heads if name in masks}
    mine = range(len(dataset))[part[0] :: part[1]]
    begin = time.perf_counter()
    with (
        evaluating(model),
        torch.inference_mode(),
        torch.autocast(where.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        for done, sample in enumerate(_read_ahead(dataset, mine), 1):
            image = torch.from_numpy(np.ascontiguousarray(sample.image)).permute(2, 0, 1)[None].to(where)
            labels, _ = inference(model, image)
            confusion.update(sample.mask, labels)
            for width, band in bands.items():
                band.update(near_boundaries(sample.mask, width), labels)
            for output in model.outputs(model.preprocess(image)) if further else ():
                if output.name in further:
                    found = logits_to_labels(output.logits, output.grid, sample.mask.shape)[0]
                    further[output.name].update(sample.further[output.name], found)
            if progress:
                progress(done, len(mine))
    seconds = time.perf_counter() - begin
    return Evaluation(model.name, dataset.name, confusion, len(dataset), seconds, precision, str(where), bands, further)


def _read_ahead(dataset: Dataset, indices: Sequence[int]) -> Iterator[Sample]:
    """Some samples in order, one being read while the one before is used."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = [reader.submit(dataset.__getitem__, index) for index in indices[:1]]
        for following in indices[1:]:
            sample = coming.pop().result()
            coming.append(reader.submit(dataset.__getitem__, following))
            yield sample
        yield from (last.result() for last in coming)


def check_classes(model: LabelSet, data: LabelSet) -> None:
    """Refuse to compare a model with data of other classes.

    A model whose classes are merely numbered is taken to know those of the data, if their number is the same.

    Raises:
        ValueError: the classes differ.
    """
    unnamed = LabelSet.numbered(len(model)).names
    if len(model) == len(data) and model.names in (data.names, unnamed):
        return
    nameless = data.names == LabelSet.numbered(len(data)).names
    mend = "; nothing names those of the data: write labels.toml with names = [...] in its folder" if nameless else ""
    raise InputError(
        f"the model tells apart {len(model)} classes ({', '.join(model.names)}), "
        f"but the data have {len(data)} ({', '.join(data.names)}); classes must be the same and in the same order{mend}"
    )


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
