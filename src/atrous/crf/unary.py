"""Unary energies of a dense CRF, from probabilities, logits or labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.crf.inputs import Array, as_tensor, check_classes, check_finite, like
from atrous.errors import InputError
from atrous.labels import IGNORE


def unary_from_probabilities(probabilities: Array, *, clip: float = 1e-5, class_axis: int = -3) -> Array:
    """Energies −log p.

    Args:
        probabilities: floating ``(C, H, W)`` or ``(B, C, H, W)``; they sum to 1 over the classes, to within 1 %.
        clip: lower bound of the probabilities, so that no class is ruled out for good (pydensecrf's default).
        class_axis: axis of the classes; -4 or 0 for a video ``(C, T, H, W)``.

    Returns:
        Energies of the same kind, shape and dtype.

    Raises:
        InputError: they are not finite, are negative, do not sum to 1, or are of a single class.
    """
    p = as_tensor(probabilities)
    p = p if p.is_floating_point() else p.float()  # one-hot labels
    check_finite("probabilities", p)
    total = p.detach().float().sum(class_axis)
    off = (total - 1).abs() > 0.01
    least = float(p.detach().min())
    if bool(off.any()) or least < 0:
        raise InputError(
            f"probabilities must be 0 or more and sum to 1 over the classes; these sum to {float(total.min()):.4g} to "
            f"{float(total.max()):.4g} over axis {class_axis}, and the lowest is {least:.4g}. For logits, use "
            "unary_from_logits"
        )
    check_classes("probabilities", p.shape[class_axis])
    return like(probabilities, -p.clamp(min=clip).log())


def unary_from_logits(logits: Array, *, class_axis: int = -3) -> Array:
    """Energies −log softmax of a network's logits.

    Args:
        logits: floating ``(C, H, W)`` or ``(B, C, H, W)``.
        class_axis: as in :func:`unary_from_probabilities`.

    Returns:
        Energies of the same kind, shape and dtype.

    Raises:
        InputError: they are not floating or not finite, or are of a single class.
    """
    tensor = as_tensor(logits)
    check_finite("logits", tensor)
    check_classes("logits", tensor.shape[class_axis])
    return like(logits, -tensor.log_softmax(class_axis))


def unary_from_labels(
    labels: NDArray[Any], num_classes: int, *, confidence: float, zero_unsure: bool = False
) -> NDArray[np.float32]:
    """Energies of hard labels, such as scribbles, with a given confidence.

    Args:
        labels: integer ``(H, W)``, 0 to ``num_classes`` − 1; 255 for unlabelled pixels.
        num_classes: number of classes C, at least 2.
        confidence: the probability that a label is right, between 0 and 1 (pydensecrf's ``gt_prob``; 0.7 in its
            examples). The other classes share the rest.
        zero_unsure: 0 marks unlabelled pixels, too, and class *c* of the result is label *c* + 1, as in pydensecrf by
            default.

    Returns:
        float32 ``(C, H, W)``.

    Raises:
        InputError: a label or the confidence is out of range.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be a probability between 0 and 1, not {confidence}")
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, not {num_classes}")
    classes = labels.astype(np.int64) - zero_unsure
    unsure = (labels == IGNORE) | (classes < 0) if zero_unsure else labels == IGNORE
    strays = ~unsure & ((classes < 0) | (classes >= num_classes))
    if strays.any():
        raise InputError(
            f"labels contain the value {labels[strays][0]} in {strays.sum()} pixels; they must be "
            f"{int(zero_unsure)} to {num_classes - 1 + zero_unsure}, or {'0 or ' if zero_unsure else ''}{IGNORE} for "
            "unlabelled pixels"
        )
    unary = np.full((num_classes, *labels.shape), -math.log((1 - confidence) / (num_classes - 1)), np.float32)
    np.put_along_axis(unary, np.where(unsure, 0, classes)[None], -math.log(confidence), axis=0)
    unary[:, unsure] = math.log(num_classes)
    return unary
