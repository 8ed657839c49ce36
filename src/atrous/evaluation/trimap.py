"""Evaluating boundaries alone: the pixels near a change of the ground truth (DeepLab, arXiv 1412.7062, §5)."""

from __future__ import annotations

import cv2
import numpy as np

from atrous.labels import IGNORE, Mask


def trimap(ground_truth: Mask, width: int) -> Mask:
    """Keep the ground truth in a band along its boundaries; everything else becomes 255.

    A pixel is in the band if the square of ``2 width + 1`` pixels around it contains a label other than its own,
    including 255. Where a thin line of ignored pixels separates all classes, as in VOC's masks, this is the published
    band: the ignored pixels dilated by that square, without themselves.

    Args:
        ground_truth: uint8 ``(H, W)``.
        width: width of the band on either side of a boundary, in pixels; positive.

    Returns:
        uint8 ``(H, W)``.
    """
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    same = cv2.dilate(ground_truth, window) == cv2.erode(ground_truth, window)
    return np.where(same, np.uint8(IGNORE), ground_truth)
