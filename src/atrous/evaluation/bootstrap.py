"""Confidence intervals over images: the metrics of many sets of images drawn with replacement (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.evaluation.per_image import COLUMNS, PerImage

Floats = NDArray[np.float64]
DRAWS = 1000
"""How many sets of images are drawn."""
LEVEL = 0.95
"""The share of the draws between the ends of an interval."""
SUMMARIES = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "boundary_iou")


@dataclass(frozen=True, eq=False)
class Draws:
    """The metrics of drawn sets of images; nan where there is no pixel to count.

    Args:
        summaries: float64 ``(draws,)`` by name, :data:`SUMMARIES`.
        classes: float64 ``(draws, C)``, IoU.
        borders: float64 ``(draws, C)``, boundary IoU.
        sizes: float64 ``(draws, 3)``, mean IoU of small, medium and large objects.
    """

    summaries: dict[str, Floats]
    classes: Floats
    borders: Floats
    sizes: Floats


def draw(per_image: PerImage, *, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Draw sets of images with replacement, as large as the whole, and compute their metrics.

    Two evaluations of the same images with the same seed are drawn alike, so that their draws can be subtracted.

    Args:
        per_image: the counts of each image; at least one.
        draws: how many sets.
        seed: of the draws.

    Returns:
        Their metrics, in ``48 C`` bytes a draw, however many images there are.
    """
    rows, by_size = per_image.rows, per_image.by_size
    image, label, counts = rows[:, 0], rows[:, 1], rows[:, 2:]
    totals = np.empty((draws, per_image.num_classes, len(COLUMNS)))
    sizes = np.empty((draws, *by_size.shape[1:]))
    for number, weights in enumerate(_weights(len(per_image), draws, seed)):
        weighted = counts * weights[image, None]
        for column in range(len(COLUMNS)):
            totals[number, :, column] = np.bincount(label, weighted[:, column], per_image.num_classes)
        sizes[number] = np.tensordot(weights, by_size, 1)
    return summarize(totals, sizes)


def summarize(totals: Floats, sizes: Floats) -> Draws:
    """Compute metrics from counts.

    Args:
        totals: float64 ``(draws, C, 6)``, the columns of :data:`atrous.evaluation.per_image.COLUMNS`.
        sizes: float64 ``(draws, 3, 2)``, number and sum of IoU of the objects of each size.
    """
    correct, true, predicted, both, border_true, border_predicted = np.moveaxis(totals, -1, 0)
    iou, all_true = _ratio(correct, true + predicted - correct), true.sum(axis=1)
    borders = _ratio(both, border_true + border_predicted - both)
    weighted = np.where(np.isnan(iou), 0, iou) * true
    return Draws(
        summaries={
            "mean_iou": _mean(iou),
            "pixel_accuracy": _ratio(correct.sum(axis=1), all_true),
            "mean_accuracy": _mean(_ratio(correct, true)),
            "frequency_weighted_iou": _ratio(weighted.sum(axis=1), all_true),
            "boundary_iou": _mean(borders),
        },
        classes=iou,
        borders=borders,
        sizes=_ratio(sizes[..., 1], sizes[..., 0]),
    )


def whole(per_image: PerImage) -> Draws:
    """The metrics of the images as they are: a single draw that holds each of them once."""
    rows = per_image.rows
    totals = np.zeros((1, per_image.num_classes, len(COLUMNS)))
    np.add.at(totals[0], rows[:, 1], rows[:, 2:])
    return summarize(totals, per_image.by_size.sum(axis=0)[None])


def interval(values: Floats, level: float = LEVEL) -> list[float] | None:
    """The percentile interval of draws ``(draws,)``: its ends; None where nothing was defined."""
    defined = values[~np.isnan(values)]
    tail = (1 - level) / 2
    return np.quantile(defined, (tail, 1 - tail)).tolist() if defined.size else None


def intervals(per_image: PerImage, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """The intervals of all metrics as JSON values, ``[lower, upper]`` each; None where they are undefined."""
    drawn = draw(per_image, draws=draws, seed=seed)
    return {
        "level": LEVEL,
        "draws": draws,
        "seed": seed,
        **{name: interval(values) for name, values in drawn.summaries.items()},
        "classes": [interval(values) for values in drawn.classes.T],
        "sizes": [interval(values) for values in drawn.sizes.T],
    }


def _weights(images: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each image is in each draw ``(images,)``."""
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(random.integers(0, images, images), minlength=images).astype(np.float64)


def _ratio(part: Floats, divisor: Floats) -> Floats:
    result: Floats = np.divide(part, divisor, out=np.full(part.shape, np.nan), where=divisor > 0)
    return result


def _mean(values: Floats) -> Floats:
    """Mean over the classes that are defined ``(draws,)``."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))
