"""The confusion matrix: pixels counted by true and predicted class, from which all metrics are computed."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.errors import InputError, InputTypeError
from atrous.labels import IGNORE, Mask

Counts = NDArray[np.int64]


def confusion_matrix(ground_truth: Mask, prediction: Mask, num_classes: int) -> Counts:
    """Count the pixels of each true class (rows) by predicted class (columns).

    Args:
        ground_truth: uint8, any shape; values in [0, num_classes), or 255 for pixels to ignore.
        prediction: uint8, the shape of ``ground_truth``; values in [0, num_classes) at every pixel that is not ignored.
        num_classes: number of classes C, 1 to 255.

    Returns:
        int64 ``(C, C)``.

    Raises:
        InputTypeError: an array is not uint8.
        InputError: shapes differ, or a value is out of range; the message names the value and how often it occurs.
    """
    _check_inputs(ground_truth, prediction, num_classes)
    joint = _joint_histogram(_flat(ground_truth), _flat(prediction))
    return _without_ignored(joint, num_classes)


def confusion_matrix_reference(ground_truth: Mask, prediction: Mask, num_classes: int) -> Counts:
    """What :func:`confusion_matrix` computes, in plain numpy."""
    _check_inputs(ground_truth, prediction, num_classes)
    joint = np.bincount(256 * ground_truth.ravel().astype(np.int64) + prediction.ravel(), minlength=1 << 16)
    return _without_ignored(joint.reshape(256, 256), num_classes)


def _check_inputs(ground_truth: Mask, prediction: Mask, num_classes: int) -> None:
    if not 1 <= num_classes <= IGNORE:
        raise InputError(f"num_classes must be 1 to {IGNORE}, not {num_classes}")
    for name, mask in (("ground truth", ground_truth), ("prediction", prediction)):
        if mask.dtype != np.uint8:
            raise InputTypeError(f"{name} must be uint8, not {mask.dtype}")
    if ground_truth.shape != prediction.shape:
        raise InputError(f"ground truth {ground_truth.shape} and prediction {prediction.shape} differ in shape")


def _without_ignored(joint: Counts, num_classes: int) -> Counts:
    """The ``(C, C)`` corner of a histogram ``(256, 256)`` of (ground truth, prediction); others are an error."""
    strays = joint[num_classes:IGNORE].sum(axis=1)
    if strays.any():
        value = int(np.flatnonzero(strays)[0])
        raise InputError(
            f"ground truth contains the value {num_classes + value} in {strays[value]} pixels; "
            f"it must be a class, 0 to {num_classes - 1}, or {IGNORE} to be ignored"
        )
    strays = joint[:num_classes, num_classes:].sum(axis=0)
    if strays.any():
        value = int(np.flatnonzero(strays)[0])
        raise InputError(
            f"prediction contains the value {num_classes + value} in {strays[value]} pixels that are not ignored; "
            f"it must be a class, 0 to {num_classes - 1}"
        )
    return joint[:num_classes, :num_classes].astype(np.int64)


def _flat(mask: Mask) -> Mask:
    """The mask as one contiguous run of bytes, aligned so that eight can be read at once."""
    flat = np.ascontiguousarray(mask).reshape(-1)
    return flat if flat.ctypes.data % 8 == 0 else flat.copy()


def _joint_histogram(ground_truth: Mask, prediction: Mask) -> Counts:
    """How often each pair of values occurs, ``(256, 256)``."""
    whole = ground_truth.size // 8 * 8
    # Rows of 256 counters would all begin in the same few cache sets; padding them makes counting four times as fast.
    counts = np.zeros((256, 264), np.int64)
    _count_words(ground_truth[:whole].view(np.uint64), prediction[:whole].view(np.uint64), counts)
    np.add.at(counts, (ground_truth[whole:], prediction[whole:]), 1)
    return counts[:, :256]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count_words(ground_truth: NDArray[np.uint64], prediction: NDArray[np.uint64], counts: Counts) -> None:
    """Count pairs of bytes, eight pixels at a time: in most of a mask, all eight are of one class."""
    each_byte, byte, eight = np.uint64(0x0101010101010101), np.uint64(255), np.uint64(8)
    for i in range(ground_truth.size):
        t, p = ground_truth[i], prediction[i]
        if t == (t & byte) * each_byte and p == (p & byte) * each_byte:
            counts[t & byte, p & byte] += 8
            continue
        for _ in range(8):
            counts[t & byte, p & byte] += 1
            t >>= eight
            p >>= eight
