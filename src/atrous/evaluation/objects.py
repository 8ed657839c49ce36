"""Objects instead of pixels: how many are found, how many predictions are right, and IoU by size of the object.

An object is an 8-connected region of one class. Its IoU is the adjusted one of SegmentMeIfYouCan (Chan et al., 2021,
arXiv 2104.14812, §4): with all predicted regions of its class that touch it, without their pixels in other objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.labels import LabelSet, Mask, ignored

MIN_PIXELS = 16
"""Smaller regions are specks, neither objects nor wrong predictions."""
SIZES = {"small": 32**2, "medium": 96**2, "large": None}
"""Sizes of objects by their area in pixels: below these limits, as COCO's (32² and 96²)."""
FOUND = 0.5
"""An object is found if its IoU is above this; a predicted region is right if more of its pixels are."""


@dataclass(frozen=True, eq=False)
class ObjectCounts:
    """The objects of one image, or of several, added up.

    Args:
        objects: int64 ``(C,)``, true objects of each class.
        found: int64 ``(C,)``, how many of them are found.
        predicted: int64 ``(C,)``, predicted regions of each class.
        right: int64 ``(C,)``, how many of these are right.
        by_size: float64 ``(3, 3)``: for small, medium and large objects their number, the sum of their IoU, and how
            many are found.
    """

    objects: NDArray[np.int64]
    found: NDArray[np.int64]
    predicted: NDArray[np.int64]
    right: NDArray[np.int64]
    by_size: NDArray[np.float64]

    @classmethod
    def none(cls, num_classes: int) -> ObjectCounts:
        """No objects."""
        objects, found, predicted, right = np.zeros((4, num_classes), np.int64)
        return cls(objects, found, predicted, right, np.zeros((len(SIZES), 3)))

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            self.objects + other.objects,
            self.found + other.found,
            self.predicted + other.predicted,
            self.right + other.right,
            self.by_size + other.by_size,
        )

    def to_dict(self, label_set: LabelSet) -> dict[str, Any]:
        """Counts, recall, precision and IoU by size as JSON values; undefined numbers are None."""
        kept = [label for label in range(len(label_set)) if is_object_class(label_set, label)]
        return {
            "min_pixels": MIN_PIXELS,
            "found_above": FOUND,
            "recall": _ratio(self.found.sum(), self.objects.sum()),
            "precision": _ratio(self.right.sum(), self.predicted.sum()),
            "sizes": [
                {"name": name, "below": below, "objects": int(n), "iou": _ratio(iou, n), "recall": _ratio(found, n)}
                for (name, below), (n, iou, found) in zip(SIZES.items(), self.by_size, strict=True)
            ],
            "classes": [
                {
                    "name": label_set.names[label],
                    "objects": int(self.objects[label]),
                    "recall": _ratio(self.found[label], self.objects[label]),
                    "predicted": int(self.predicted[label]),
                    "precision": _ratio(self.right[label], self.predicted[label]),
                }
                for label in kept
            ],
        }


def is_object_class(label_set: LabelSet, label: int) -> bool:
    """Whether regions of a class are counted as objects: not those of class 0 named ``background``."""
    return label > 0 or label_set.names[0] != "background"


def count_objects(ground_truth: Mask, prediction: Mask, label_set: LabelSet) -> ObjectCounts:
    """Count the objects of an image.

    Args:
        ground_truth: ``(H, W)``, classes or ignored; ignored pixels belong to no region.
        prediction: ``(H, W)``, classes.
        label_set: the classes.
    """
    counts = ObjectCounts.none(len(label_set))
    predicted = np.where(ignored(ground_truth), ground_truth, prediction)
    occurs = np.zeros(label_set.ignore + 1, bool)
    occurs[ground_truth] = occurs[predicted] = True
    for label in np.flatnonzero(occurs[: len(label_set)]).tolist():
        if is_object_class(label_set, label):
            _count_class(ground_truth == label, predicted == label, label, counts)
    return counts


def _count_class(true: NDArray[np.bool_], predicted: NDArray[np.bool_], label: int, counts: ObjectCounts) -> None:
    """Add the objects of one class to ``counts``."""
    (objects, areas), (regions, sizes) = _regions(true), _regions(predicted)
    both = true & predicted
    pairs, shared = np.unique(objects[both].astype(np.int64) * len(sizes) + regions[both], return_counts=True)
    of_object, of_region = np.divmod(pairs, len(sizes))
    hits = np.bincount(of_region, shared, len(sizes))  # pixels of a predicted region that are right
    overlap = np.bincount(of_object, shared, len(areas))
    union = areas + np.bincount(of_object, (sizes - hits)[of_region], len(areas))
    counted, judged = areas >= MIN_PIXELS, sizes >= MIN_PIXELS
    counted[0] = judged[0] = False  # the outside
    iou = (overlap / union)[counted]
    counts.objects[label] = counted.sum()
    counts.found[label] = (iou > FOUND).sum()
    counts.predicted[label] = judged.sum()
    counts.right[label] = (hits[judged] / sizes[judged] > FOUND).sum()
    limits = [limit for limit in SIZES.values() if limit]
    size = np.searchsorted(limits, areas[counted], side="right")
    for column, weights in enumerate((np.ones_like(iou), iou, iou > FOUND)):
        counts.by_size[:, column] += np.bincount(size, weights, len(SIZES))


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The 8-connected regions of a mask, numbered from 1, and their areas; number 0 is the outside, of area 1 at least
    so that nothing is divided by zero.
    """
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = np.maximum(stats[:, cv2.CC_STAT_AREA].astype(np.int64), 1)
    return np.asarray(numbers, np.int32), areas


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
