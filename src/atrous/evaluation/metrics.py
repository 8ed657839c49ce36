"""Segmentation metrics, computed from one confusion matrix over a whole set (FCN, arXiv 1411.4038, §5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError, InputTypeError
from atrous.labels import LabelSet, Mask, ignore_value, mask_dtype

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Metrics:
    """Metrics of a confusion matrix, 0 to 1 each; nan if there are no pixels to count.

    Args:
        pixel_accuracy: correct pixels among all pixels that are not ignored.
        mean_accuracy: mean of ``accuracy`` over the classes that occur in the ground truth.
        mean_iou: mean of ``iou`` over the classes that occur in the ground truth or in the prediction; a class that is
            only predicted counts as 0.
        mean_iou_of_true_classes: mean of ``iou`` over the classes that occur in the ground truth, as in the FCN paper
            on SIFT Flow, whose test set is missing three; a pixel wrongly predicted as one of these counts against its
            true class only.
        frequency_weighted_iou: mean of ``iou`` weighted by the true pixels of each class.
        iou: intersection over union of each class ``(C,)``.
        accuracy: correct pixels among the true pixels of each class ``(C,)``.
        absent: names of the classes that do not occur in the ground truth.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    mean_iou_of_true_classes: float
    frequency_weighted_iou: float
    iou: Floats
    accuracy: Floats
    absent: tuple[str, ...]


class ConfusionMatrix:
    """Counts pixels by true and predicted class over any number of images.

    Args:
        label_set: the classes; 255 in the ground truth is ignored (65535 for more than 255 classes).

    ``matrix`` is int64 ``(C, C)``, rows true, columns predicted. ``images`` is int64 ``(C,)``: the number of images
    whose ground truth contains each class.
    """

    def __init__(self, label_set: LabelSet) -> None:
        self.label_set = label_set
        self.matrix: Counts = np.zeros((len(label_set), len(label_set)), np.int64)
        self.images: Counts = np.zeros(len(label_set), np.int64)

    def update(self, ground_truth: Mask | Tensor, prediction: Mask | Tensor) -> None:
        """Add one image ``(H, W)``, or several of one size ``(B, H, W)``.

        Args:
            ground_truth: integers, classes or 255; numpy or torch, any device.
            prediction: integers of the same shape, classes wherever the ground truth is not 255.

        Raises:
            InputTypeError: values are not integers.
            InputError: shapes differ, or a value is not a class; the message names it. Nothing has been counted then.
        """
        from atrous.ops.confusion import confusion_matrix  # numba is loaded when it is first needed

        num_classes = len(self.label_set)
        true = _values("ground truth", ground_truth, num_classes)
        predicted = _values("prediction", prediction, num_classes)
        if true.ndim not in (2, 3) or true.shape != predicted.shape:
            raise InputError(
                f"ground truth {true.shape} and prediction {predicted.shape} must have one size, (H, W) or (B, H, W)"
            )
        pairs = [(true, predicted)] if true.ndim == 2 else list(zip(true, predicted, strict=True))
        counts = np.array([confusion_matrix(t, p, num_classes) for t, p in pairs], np.int64)
        counts = counts.reshape(-1, *self.matrix.shape)  # also for an empty batch
        self.matrix += counts.sum(axis=0)
        self.images += (counts.sum(axis=2) > 0).sum(axis=0)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix, over other images.

        Raises:
            InputError: its classes differ.
        """
        if other.label_set.names != self.label_set.names:
            raise InputError("confusion matrices of different classes can't be added")
        self.matrix += other.matrix
        self.images += other.images

    def metrics(self) -> Metrics:
        """Compute the metrics of what has been counted so far."""
        true = self.matrix.sum(axis=1)
        union = true + self.matrix.sum(axis=0) - self.matrix.diagonal()
        iou = _ratio(self.matrix.diagonal(), union)
        accuracy = _ratio(self.matrix.diagonal(), true)
        occurs = true > 0
        return Metrics(
            pixel_accuracy=float(_ratio(self.matrix.trace(), true.sum())),
            mean_accuracy=_mean(accuracy[occurs]),
            mean_iou=_mean(iou[union > 0]),
            mean_iou_of_true_classes=_mean(iou[occurs]),
            frequency_weighted_iou=float(_ratio(true[occurs] @ iou[occurs], true.sum())),
            iou=iou,
            accuracy=accuracy,
            absent=tuple(name for name, there in zip(self.label_set.names, occurs, strict=True) if not there),
        )

    def frequent_classes(self, min_images: int = 10) -> tuple[str, ...]:
        """The background (class 0, if so named), and the classes that truly occur in at least ``min_images`` images."""
        return tuple(
            name
            for i, name in enumerate(self.label_set.names)
            if self.images[i] >= min_images or (i == 0 and name == "background")
        )

    def mean_iou_over(self, min_images: int = 10) -> float:
        """Mean IoU over :meth:`frequent_classes` alone, without the noise of classes that are rare in a small set."""
        chosen = [self.label_set.names.index(name) for name in self.frequent_classes(min_images)]
        iou = self.metrics().iou[chosen]
        return _mean(iou[~np.isnan(iou)])


def _values(name: str, values: Mask | Tensor, num_classes: int) -> Mask:
    array: NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    dtype, ignore = mask_dtype(num_classes), ignore_value(num_classes)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "iu":
        raise InputTypeError(f"{name} must hold integers, not {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > ignore):
        value = array.min() if array.min() < 0 else array.max()
        raise InputError(f"{name} contains the value {value}; it must be a class, or {ignore} to be ignored")
    return array.astype(dtype)


def _ratio(part: Any, whole: Any) -> Floats:
    """``part / whole``, nan where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    result: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return result


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
