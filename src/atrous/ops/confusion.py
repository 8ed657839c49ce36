"""The confusion matrix: pixels counted by true and predicted class, from which all metrics are computed."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atrous.errors import InputError, InputTypeError
from atrous.labels import IGNORE, WIDE_IGNORE, Mask, ignore_value, ignored, mask_dtype

Counts = NDArray[np.int64]


def confusion_matrix(ground_truth: Mask, prediction: Mask, num_classes: int) -> Counts:
    """Count the pixels of each true class (rows) by predicted class (columns).

    Args:
        ground_truth: uint8, any shape; values in [0, num_classes), or 255 for pixels to ignore. For more than 255
            classes uint16, and 65535.
        prediction: like it; values in [0, num_classes) at every pixel that is not ignored.
        num_classes: number of classes C, 1 to 65,535. The counts have C² entries of 8 bytes.

    Returns:
        int64 ``(C, C)``.

    Raises:
        InputTypeError: an array has another dtype.
        InputError: shapes differ, or a value is out of range; the message names the value and how often it occurs.
    """
    _check_inputs(ground_truth, prediction, num_classes)
    if num_classes > IGNORE:
        return _wide(ground_truth, prediction, num_classes)
    joint = _joint_histogram(_flat(ground_truth), _flat(prediction))
    return _without_ignored(joint, num_classes)


def confusion_matrix_reference(ground_truth: Mask, prediction: Mask, num_classes: int) -> Counts:
    """What :func:`confusion_matrix` computes, in plain numpy."""
    _check_inputs(ground_truth, prediction, num_classes)
    known = ~ignored(ground_truth)
    true, predicted = ground_truth[known], prediction[known]
    _refuse_strays(np.bincount(true), np.bincount(predicted[true < num_classes]), num_classes)
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def _check_inputs(ground_truth: Mask, prediction: Mask, num_classes: int) -> None:
    if not 1 <= num_classes <= WIDE_IGNORE:
        raise InputError(f"num_classes must be 1 to {WIDE_IGNORE}, not {num_classes}")
    dtype = np.dtype(mask_dtype(num_classes))
    for name, mask in (("ground truth", ground_truth), ("prediction", prediction)):
        if mask.dtype != dtype:
            raise InputTypeError(f"{name} must be {dtype}, not {mask.dtype}")
    if ground_truth.shape != prediction.shape:
        raise InputError(f"ground truth {ground_truth.shape} and prediction {prediction.shape} differ in shape")


def _without_ignored(joint: Counts, num_classes: int) -> Counts:
    """The ``(C, C)`` corner of a histogram ``(256, 256)`` of (ground truth, prediction); others are an error."""
    _refuse_strays(joint[:IGNORE].sum(axis=1), joint[:num_classes].sum(axis=0), num_classes)
    return joint[:num_classes, :num_classes].astype(np.int64)


def _refuse_strays(true: Counts, predicted: Counts, num_classes: int) -> None:
    """Refuse values that are no classes.

    Args:
        true: how often each value occurs in the ground truth; ignored pixels are not among them.
        predicted: how often each value occurs in the prediction, where the ground truth is a class.
        num_classes: number of classes.
    """
    if true[num_classes:].any():
        value = num_classes + int(np.flatnonzero(true[num_classes:])[0])
        raise InputError(
            f"ground truth contains the value {value} in {true[value]} pixels; "
            f"it must be a class, 0 to {num_classes - 1}, or {ignore_value(num_classes)} to be ignored"
        )
    if predicted[num_classes:].any():
        value = num_classes + int(np.flatnonzero(predicted[num_classes:])[0])
        raise InputError(
            f"prediction contains the value {value} in {predicted[value]} pixels that are not ignored; "
            f"it must be a class, 0 to {num_classes - 1}"
        )


def _wide(ground_truth: Mask, prediction: Mask, num_classes: int) -> Counts:
    """The counts of masks of 16 bits."""
    known = ~ignored(ground_truth)
    true, predicted = ground_truth[known].astype(np.int64), prediction[known]
    _refuse_strays(np.bincount(true), np.bincount(predicted[true < num_classes]), num_classes)
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


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
