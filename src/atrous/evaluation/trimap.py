"""Evaluating boundaries alone: the pixels near a change of the ground truth (DeepLab, arXiv 1412.7062, §5)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.labels import Mask, ignore_of


def trimap(ground_truth: Mask, width: int) -> Mask:
    """Keep the ground truth in a band along its boundaries; everything else is ignored.

    A pixel is in the band if the square of ``2 width + 1`` pixels around it contains a label other than its own,
    including ignored ones. Where a thin line of ignored pixels separates all classes, as in VOC's masks, this is the
    published band: the ignored pixels dilated by that square, without themselves.

    Args:
        ground_truth: ``(H, W)``.
        width: width of the band on either side of a boundary, in pixels; positive.

    Returns:
        ``(H, W)`` in the same dtype.
    """
    return np.where(near_other_labels(ground_truth, width), ground_truth, ignore_of(ground_truth))


def near_other_labels(labels: Mask, distance: int) -> NDArray[np.bool_]:
    """Whether the square of ``2 distance + 1`` pixels around each pixel contains another label: ``(H, W)``."""
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    different: NDArray[np.bool_] = cv2.dilate(labels, window) != cv2.erode(labels, window)
    return different
