"""What an evaluation finds beside its confusion matrix: borders, objects, calibration, and the counts of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atrous.evaluation.bootstrap import intervals, whole
from atrous.evaluation.boundary_iou import RATIO, border_counts
from atrous.evaluation.calibration import Calibration
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.objects import ObjectCounts, count_objects
from atrous.evaluation.per_image import PerImage
from atrous.inference.test_time import Inference, View
from atrous.labels import LabelSet, Mask

SEED = 0
"""Of the bootstrap."""


class Details:
    """Everything that is counted beside the confusion matrix, image by image.

    Attributes:
        label_set: the classes.
        per_image: the counts of each image.
        objects: the objects of all images.
        calibration: of the class probabilities before any CRF.
    """

    def __init__(self, label_set: LabelSet) -> None:
        self.label_set = label_set
        self.per_image = PerImage(len(label_set))
        self.objects = ObjectCounts.none(len(label_set))
        self.calibration = Calibration()

    def update(self, name: str, ground_truth: Mask, prediction: Mask, counted: ConfusionMatrix) -> None:
        """Add an image.

        Args:
            name: of the image.
            ground_truth: ``(H, W)``, classes or ignored.
            prediction: ``(H, W)``, classes.
            counted: the confusion matrix of this image.
        """
        objects = count_objects(ground_truth, prediction, self.label_set)
        borders = border_counts(ground_truth, prediction, len(self.label_set))
        self.per_image.add(name, counted.matrix, borders, objects.by_size)
        self.objects += objects

    def update_calibration(
        self, ground_truth: Mask, inference: Inference, views: Sequence[View], table: Tensor | None = None
    ) -> None:
        """Add the class probabilities of an image.

        Args:
            ground_truth: ``(H, W)``, classes or ignored.
            inference: how the views were merged.
            views: what the network computed.
            table: the data's label of each of the model's, where they differ
                (:func:`atrous.evaluation.classes.label_table`).
        """
        for first, probabilities in inference.probability_strips(views, ground_truth.shape):
            rows = ground_truth[first : first + probabilities.shape[1]]
            true = torch.from_numpy(np.ascontiguousarray(rows)).to(probabilities.device).long()
            confidence, label = probabilities.max(0)
            if table is not None:
                confidence, label = _mapped(probabilities, label, table.to(label.device).long())
            known = true != self.label_set.ignore
            self.calibration.update(confidence[known], (label == true)[known])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; undefined numbers are None."""
        found = whole(self.per_image)
        return {
            "intervals": intervals(self.per_image, seed=SEED),
            "boundary_iou": {
                "border": f"{RATIO:.0%} of the image's diagonal",
                "mean_iou": _defined(float(found.summaries["boundary_iou"][0])),
                "classes": [_defined(value) for value in found.borders[0].tolist()],
            },
            "objects": self.objects.to_dict(self.label_set),
            "calibration": self.calibration.to_dict(),
            "per_image": self.per_image.to_dict(),
        }


def _mapped(probabilities: Tensor, label: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The confidence in the data's class of each label, which may be several of the model's, and that class.

    Args:
        probabilities: of the model's classes, ``(C, h, w)``.
        label: the chosen ones, ``(h, w)``.
        table: the data's label of each of the model's, int64, one each.
    """
    summed = probabilities.new_zeros((int(table.max()) + 1, *label.shape)).index_add_(0, table, probabilities)
    chosen = table[label]
    return summed.gather(0, chosen[None])[0], chosen


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
