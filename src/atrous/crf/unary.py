"""Unary energies: what a dense CRF is told of each pixel before it looks at the others."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError
from atrous.labels import IGNORE

Array = TypeVar("Array", NDArray[Any], Tensor)


def unary_from_probabilities(probabilities: Array, *, clip: float = 1e-5, class_axis: int = -3) -> Array:
    """Energies −log p.

    Args:
        probabilities: floating ``(C, H, W)`` or ``(B, C, H, W)``; they sum to 1 over the classes, to within 1 %.
        clip: smaller probabilities count as this much, so that no class is ruled out for good (pydensecrf's default).
        class_axis: where the classes are; -4 or 0 for a video ``(C, T, H, W)``.

    Returns:
        Energies of the same kind, shape and dtype.

    Raises:
        ValueError: they are not finite, not in 0–1, or do not sum to 1.
    """
    p = _tensor(probabilities)
    check_finite("probabilities", p)
    total = p.detach().float().sum(class_axis)
    off = (total - 1).abs() > 0.01
    if bool(off.any()) or float(p.detach().min()) < 0:
        raise InputError(
            f"probabilities must be 0 or more and sum to 1 over the classes; here they sum to {float(total.min()):.4g}–"
            f"{float(total.max()):.4g} over axis {class_axis}, the least is {float(p.detach().min()):.4g}. "
            "Scores (logits) go through unary_from_logits"
        )
    return _like(probabilities, -p.clamp(min=clip).log())


def unary_from_logits(scores: Array, *, class_axis: int = -3) -> Array:
    """Energies −log softmax of a network's scores (logits).

    Args:
        scores: floating ``(C, H, W)`` or ``(B, C, H, W)``.
        class_axis: as in :func:`unary_from_probabilities`.

    Returns:
        Energies of the same kind, shape and dtype.

    Raises:
        ValueError: they are not finite.
    """
    s = _tensor(scores)
    check_finite("scores", s)
    return _like(scores, -s.log_softmax(class_axis))


def unary_from_labels(
    labels: NDArray[Any], num_classes: int, *, confidence: float, zero_unsure: bool = False
) -> NDArray[np.float32]:
    """Energies of hard labels, such as scribbles, that are right with some confidence.

    Args:
        labels: integer ``(H, W)``, 0 to ``num_classes`` − 1; 255 marks pixels that may be anything.
        num_classes: C, at least 2.
        confidence: the probability that a label is right, between 0 and 1 (pydensecrf's ``gt_prob``; 0.7 in its
            examples). The rest is shared by the other classes.
        zero_unsure: 0 as well marks pixels that may be anything, and class *c* of the result is label *c* + 1. That is
            what pydensecrf does unless told otherwise.

    Returns:
        float32 ``(C, H, W)``.

    Raises:
        ValueError: a label is out of range, or the confidence is.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is a probability between 0 and 1, not {confidence}")
    if num_classes < 2:
        raise InputError(f"a CRF tells at least 2 classes apart, not {num_classes}")
    classes = labels.astype(np.int64) - zero_unsure
    unsure = (labels == IGNORE) | (classes < 0) if zero_unsure else labels == IGNORE
    strays = ~unsure & ((classes < 0) | (classes >= num_classes))
    if strays.any():
        raise InputError(
            f"labels hold the value {labels[strays][0]} in {strays.sum()} pixels; they must be {int(zero_unsure)} to "
            f"{num_classes - 1 + zero_unsure}, or {'0 or ' if zero_unsure else ''}{IGNORE} where anything may be"
        )
    unary = np.full((num_classes, *labels.shape), -math.log((1 - confidence) / (num_classes - 1)), np.float32)
    np.put_along_axis(unary, np.where(unsure, 0, classes)[None], -math.log(confidence), axis=0)
    unary[:, unsure] = math.log(num_classes)
    return unary


def check_finite(name: str, values: Tensor) -> None:
    """Raise an error that says how many values are no finite numbers, and where the first is."""
    if math.isfinite(values.detach().sum()):  # the quickest way to rule it out: one such value makes the sum another
        return
    if not values.is_floating_point():
        raise InputError(f"{name} must be floating, not {values.dtype}")
    finite = values.detach().isfinite()
    if not bool(finite.all()):
        first = tuple((~finite).nonzero()[0].tolist())
        raise InputError(
            f"{name} must be finite: {int((~finite).sum())} of {finite.numel()} are not, the first at {first}"
        )


def _tensor(values: NDArray[Any] | Tensor) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))


def _like(given: Array, result: Tensor) -> Array:
    return result if isinstance(given, Tensor) else result.numpy()
