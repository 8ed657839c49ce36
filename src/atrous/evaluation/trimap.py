"""Judging boundaries alone: the pixels near a change of the truth (DeepLab §5, SPEC §7.3)."""

from __future__ import annotations

import cv2
import numpy as np

from atrous.labels import IGNORE, Mask


def trimap(truth: Mask, width: int) -> Mask:
    """The truth in a band along its boundaries, and 255 elsewhere.

    A pixel is in the band if the square of ``2 width + 1`` pixels around it holds another label than its own, ignored
    ones included. Where all classes are parted by a thin line of ignored pixels, as in VOC's masks, that is the
    published band: the ignored pixels dilated by that square, without themselves.

    Args:
        truth: uint8 ``(H, W)``.
        width: of the band, to either side of a boundary, in pixels; positive.

    Returns:
        uint8 ``(H, W)``.
    """
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    same = cv2.dilate(truth, window) == cv2.erode(truth, window)
    return np.where(same, np.uint8(IGNORE), truth)
