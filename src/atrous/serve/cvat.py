"""CVAT: what a serverless function (nuclio) answers, so that a model annotates a task before a person does."""

from __future__ import annotations

from typing import Any

import numpy as np

from atrous.data.writers.base import Classes, parts_of
from atrous.inference.segmentation import Segmentation
from atrous.serve.answers import confidence

SMALLEST = 16
"""Pixels of a part below which it is left out: a person would have to delete it."""


def masks_of(found: Segmentation, threshold: float = 0.0) -> list[dict[str, Any]]:
    """A mask for each connected part of each class, but the background.

    Args:
        found: a segmentation, with class probabilities where the threshold is to count.
        threshold: the mean confidence below which a part is left out, 0 to 1.

    Returns:
        CVAT's objects of the type ``mask``: the pixels of the box along the rows, 0 or 1, and then its left, top, right
        and bottom pixel.
    """
    classes = Classes.of(found.label_set)
    certain = None if found.class_probabilities is None else confidence(found)
    objects = []
    for part in parts_of(found.labels, classes):
        height, width = part.inside.shape
        window = slice(part.top, part.top + height), slice(part.left, part.left + width)
        sure = 1.0 if certain is None else float(certain[window][part.inside].mean()) / 255
        if part.inside.sum() < SMALLEST or sure < threshold:
            continue
        box = [part.left, part.top, part.left + width - 1, part.top + height - 1]
        objects.append(
            {
                "confidence": f"{sure:.4f}",
                "label": classes.names[part.label],
                "type": "mask",
                "points": _corners(box),
                "mask": [*part.inside.astype(np.uint8).reshape(-1).tolist(), *box],
            }
        )
    return objects


def _corners(box: list[int]) -> list[int]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]
