"""Boundary IoU: IoU of the inner borders of true and predicted regions (Cheng et al., CVPR 2021, arXiv 2103.16562)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from atrous.evaluation.trimap import near_other_labels
from atrous.labels import Mask, ignore_of, ignored

RATIO = 0.02
"""The width of a border in diagonals of the image, as published (§5)."""


def border_width(height: int, width: int) -> int:
    """The width of the borders in an image of this size, in pixels: 2 % of its diagonal, at least 1."""
    return max(1, round(RATIO * math.hypot(height, width)))


def borders(labels: Mask, width: int) -> Mask:
    """Keep the labels within ``width`` pixels of another label or of the image's edge; everything else is ignored.

    This is the published inner border of every class at once: a region minus its erosion, with nothing outside the
    image.

    Args:
        labels: ``(H, W)``; ignored pixels are another label too.
        width: in pixels, positive.

    Returns:
        ``(H, W)`` in the same dtype.
    """
    kept = near_other_labels(labels, width)
    kept[:width] = kept[-width:] = True
    kept[:, :width] = kept[:, -width:] = True
    return np.where(kept, labels, ignore_of(labels))


def border_counts(ground_truth: Mask, prediction: Mask, num_classes: int) -> NDArray[np.int64]:
    """Count the pixels of true and predicted borders, class by class.

    Ignored pixels are ignored in the prediction too, so that a perfect one has the borders of the ground truth.

    Args:
        ground_truth: ``(H, W)``, classes or ignored.
        prediction: ``(H, W)``, classes.
        num_classes: number of classes C.

    Returns:
        int64 ``(C, 3)``: pixels in both borders, in the true one, and in the predicted one. Boundary IoU is
        ``both / (true + predicted - both)``.
    """
    width = border_width(*ground_truth.shape)
    true = borders(ground_truth, width)
    predicted = borders(np.where(ignored(ground_truth), ground_truth, prediction), width)
    both = true[true == predicted]
    counts = [np.bincount(part.reshape(-1), minlength=num_classes)[:num_classes] for part in (both, true, predicted)]
    return np.stack(counts, axis=1).astype(np.int64)
