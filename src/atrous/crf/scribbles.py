"""From a few strokes per class to the labels of a whole image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.settings import Settings
from atrous.crf.unary import unary_from_probabilities
from atrous.errors import InputError
from atrous.labels import IGNORE, Mask

SCRIBBLE_SETTINGS = Settings(weight=10, sxy=80, srgb=13, smoothness=3, smoothness_sxy=3, iterations=5)
"""The CRF's by default: of these images and strokes, wide kernels do best."""
_SIDE = 500
"""Longest side of an image in whose pixels distances are counted."""
_TRUST, _REACH, _MOST = 10.0, 20.0, 8.0
"""Geodesic distances by which a nearer class is e times as likely, and after which that counts e times less, and the
most that it counts. Chosen on six images of VOC's val with simulated strokes.
"""
_UNKNOWN = 0.02
"""Of a class's strokes, the part on which a network might have said anything."""


def labels_from_scribbles(
    image: NDArray[Any],
    scribbles: NDArray[Any],
    *,
    probabilities: NDArray[Any] | None = None,
    crf: DenseCRF | None = None,
) -> Mask:
    """Complete a few strokes per class to labels: near strokes by geodesic distance, elsewhere by a dense CRF.

    A network's class probabilities help if they tell the strokes apart: its classes may be others than the strokes',
    since which of them lie under the strokes of a class is counted.

    Args:
        image: ``(H, W, channels)``, uint8 or floating, 0–255; of three channels RGB.
        scribbles: integers ``(H, W)``: the class of each pixel under a stroke, 0 to 254, and 255 for the others. Labels
            under strokes stay, and only their classes are given.
        probabilities: a network's, floating ``(K, H, W)``.
        crf: another CRF than the default one, whose kernels are 80 pixels and 13 of 255 wide, and 3 pixels.

    Returns:
        uint8 ``(H, W)``.

    Raises:
        InputError: sizes that differ, values that are not classes, or no strokes.

    Example:
        >>> import numpy as np
        >>> from atrous.crf import labels_from_scribbles
        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> image[:, 30:] = 200
        >>> scribbles = np.full((40, 60), 255)
        >>> scribbles[20, 5:10], scribbles[20, 50:55] = 0, 1
        >>> labels = labels_from_scribbles(image, scribbles)
        >>> int(labels[0, 0]), int(labels[0, 59]), float(labels.mean())
        (0, 1, 0.5)
    """
    _check(image, scribbles, probabilities)
    classes = np.unique(scribbles[scribbles != IGNORE])
    if len(classes) == 0:
        raise InputError("there are no strokes: every pixel of the scribbles is 255, which means none")
    if len(classes) == 1:
        return np.full(scribbles.shape, classes[0], np.uint8)
    strokes = np.stack([scribbles == label for label in classes])
    unary = _unary_of_distances(image, strokes)
    if probabilities is not None:
        unary += unary_from_probabilities(_counted(probabilities, strokes))
    fixed = np.where(strokes.any(0), strokes.argmax(0), IGNORE)
    found = (crf or SCRIBBLE_SETTINGS.build()).labels(image, unary, fixed=fixed)
    labels: Mask = classes.astype(np.uint8)[found]
    return labels


def _check(image: NDArray[Any], scribbles: NDArray[Any], probabilities: NDArray[Any] | None) -> None:
    if image.ndim != 3:
        raise InputError(f"image must be (H, W, channels), not {image.shape}: a grey one has one, image[..., None]")
    if scribbles.shape != image.shape[:2] or scribbles.dtype.kind not in "iu":
        raise InputError(
            f"scribbles must be integers {image.shape[:2]}, as the image, not {scribbles.dtype} {scribbles.shape}"
        )
    if scribbles.size and (scribbles.min() < 0 or scribbles.max() > IGNORE):
        raise InputError(
            f"scribbles have values from {scribbles.min()} to {scribbles.max()}; classes are 0 to {IGNORE - 1}, and "
            f"{IGNORE} is a pixel without a stroke"
        )
    if probabilities is not None and (probabilities.ndim != 3 or probabilities.shape[1:] != scribbles.shape):
        raise InputError(
            f"probabilities must be (K, {', '.join(map(str, scribbles.shape))}), at the image's size, not "
            f"{probabilities.shape}"
        )


def _unary_of_distances(image: NDArray[Any], strokes: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Energies ``(C, H, W)``: of classes whose strokes are farther, less and less so with the distance of the nearest.

    Criminisi et al., "GeoS: Geodesic Image Segmentation" (2008) take the nearest class everywhere; far from all
    strokes, the CRF knows better.
    """
    from atrous.crf.cpu.geodesic import geodesic_distances  # numba is loaded when it is first needed

    smooth = cv2.GaussianBlur(np.ascontiguousarray(image, np.float32), (0, 0), 1)
    smooth = smooth.reshape(image.shape)  # OpenCV drops the axis of a single channel
    if image.shape[2] == 3:
        smooth = cv2.cvtColor(smooth / 255, cv2.COLOR_RGB2LAB) * np.array([2.55, 1, 1], np.float32)  # units of 8 bits
    distances = geodesic_distances(smooth, list(strokes), _SIDE / max(image.shape[:2]))
    nearest = distances.min(0)
    unary: NDArray[np.float32] = np.minimum((distances - nearest) / _TRUST, _MOST) * np.exp(-nearest / _REACH)
    return unary


def _counted(probabilities: NDArray[Any], strokes: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The strokes' classes ``(C, H, W)``, from a network's and how often each of them is under which strokes."""
    seen = np.stack([probabilities[:, stroke].mean(1) for stroke in strokes]).astype(np.float32)  # (C, K)
    seen += _UNKNOWN / len(probabilities)
    seen /= seen.sum(0)
    flat = probabilities.reshape(len(probabilities), -1)
    found: NDArray[np.float32] = seen @ flat.astype(np.float32, copy=False)
    found /= found.sum(0)
    return found.reshape(strokes.shape)
