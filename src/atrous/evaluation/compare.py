"""Comparing two evaluations of the same images: paired differences with intervals, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.evaluation.bootstrap import LEVEL, Draws, draw, interval, whole
from atrous.evaluation.objects import SIZES
from atrous.evaluation.per_image import PerImage
from atrous.evaluation.report import aligned
from atrous.evaluation.stored import StoredEvaluation

DRAWS = 2000
NAMED = 3
"""Classes that a verdict names on either side."""
SUMMARIES = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "boundary_iou": "boundary IoU"}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """How a figure of B differs from that of A.

    Args:
        name: what is compared.
        a: the figure of A, 0 to 1; None if undefined.
        b: that of B.
        interval: of ``b - a``; None if undefined.
        sure: whether the interval, for one class of many a wider one, is without 0.
    """

    name: str
    a: float | None
    b: float | None
    interval: tuple[float, float] | None
    sure: bool

    @property
    def value(self) -> float | None:
        """``b - a``; None if one of them is undefined."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same images.

    Args:
        a: the first.
        b: the second.
        summary: mean IoU, pixel accuracy, boundary IoU.
        sizes: mean IoU of small, medium and large objects.
        classes: IoU of each class.
        images: the indices of the images, from the largest loss to the largest gain of B in mean IoU.
        changes: the gain of each image; nan where it is undefined.
    """

    a: StoredEvaluation
    b: StoredEvaluation
    summary: tuple[Difference, ...]
    sizes: tuple[Difference, ...]
    classes: tuple[Difference, ...]
    images: tuple[int, ...]
    changes: Floats

    def verdict(self) -> str:
        """What the comparison says, in a sentence."""
        main = self.summary[0]
        if main.value is None or main.interval is None:
            return "Nothing can be compared: every pixel of the ground truth is ignored."
        low, high = (100 * end for end in main.interval)
        if main.sure:
            word = "better" if main.value > 0 else "worse"
            ends = (low, high) if main.value > 0 else (-high, -low)
            parts = [f"B is {word} by {abs(100 * main.value):.1f} points ({ends[0]:.1f} to {ends[1]:.1f})"]
        else:
            parts = [
                f"No difference in mean IoU is certain: {100 * main.value:+.1f} points ({low:+.1f} to {high:+.1f})"
            ]
        for word, sign in (("gains", 1), ("loses", -1)):
            if told := self._told(sign):
                parts.append(f"{word} {told}" if main.sure else f"B {word} {told}")
        return "; ".join(parts)

    def _told(self, sign: int) -> str:
        """Where B is surely better (or worse): boundaries, sizes, and the classes with the largest differences."""
        boundary = self.summary[2]
        places = ["at boundaries"] if _surely(boundary, sign) else []
        sizes = [row.name for row in self.sizes if _surely(row, sign)]
        classes = [row for row in self.classes if _surely(row, sign)]
        classes.sort(key=lambda row: -abs(row.value or 0))
        if len(sizes) == len(SIZES):
            places.append("on objects of every size")
        elif sizes:
            places.append(f"on {_and(sizes)} objects")
        if classes:
            more = f" and {len(classes) - NAMED} more classes" if len(classes) > NAMED else ""
            names = [row.name for row in classes[:NAMED]]
            places.append(f"on {', '.join(names) + more if more else _and(names)}")
        return _and(places)

    def text(self) -> str:
        """The verdict, and tables of the figures in percent and of the images that changed most."""
        head = [["", "A", "B", "difference", f"{LEVEL:.0%} interval"]]
        rows = [_row(row) for row in (*self.summary, *(_named(row, "objects") for row in self.sizes))]
        classes = [_row(row) for row in self.classes if row.value is not None]
        names = self.a.per_image().names
        changed = [["image", "change of IoU"]]
        for index in (*self.images[:5], *self.images[max(5, len(self.images) - 5) :]):
            changed.append([names[index], f"{100 * self.changes[index]:+.1f}"])
        about = f"A: {self.a.title}\nB: {self.b.title}\non {self.a.data}, {self.a.images:,} images"
        parts = [about, self.verdict() + ".", aligned(head + rows), aligned([["class", *head[0][1:]], *classes])]
        return "\n\n".join([*parts, aligned(changed)])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        names = self.a.per_image().names

        def facts(rows: Sequence[Difference]) -> list[dict[str, Any]]:
            return [vars(row) | {"difference": row.value} for row in rows]

        return {
            "a": self.a.title,
            "b": self.b.title,
            "data": self.a.data,
            "verdict": self.verdict(),
            "summary": facts(self.summary),
            "sizes": facts(self.sizes),
            "classes": facts(self.classes),
            "images": [{"name": names[i], "difference": float(self.changes[i])} for i in self.images],
        }


def compare(a: StoredEvaluation, b: StoredEvaluation, *, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same images.

    Both are drawn alike, image by image, so that what is hard for both cancels out. A class counts as surely better
    or worse if its interval at the level 1 − 0.05 / C is without 0, since one of many would seem so by chance.

    Args:
        a: an evaluation with the counts of its images.
        b: another one.
        seed: of the draws.

    Raises:
        InputError: their classes, images or ground truth differ, or they hold no counts of images.
    """
    of_a, of_b = a.per_image(), b.per_image()
    check_same_data(a, b, of_a, of_b)
    whole_a, whole_b = whole(of_a), whole(of_b)
    drawn_a, drawn_b = (draw(per_image, draws=DRAWS, seed=seed) for per_image in (of_a, of_b))
    names = [row.name for row in a.classes]
    changes = of_b.mean_iou() - of_a.mean_iou()
    order = [index for index in np.argsort(changes, kind="stable").tolist() if not np.isnan(changes[index])]

    def difference(name: str, key: Callable[[Draws], Floats], comparisons: int = 1) -> Difference:
        return _difference(
            name, float(key(whole_a)[0]), float(key(whole_b)[0]), key(drawn_b) - key(drawn_a), comparisons
        )

    return Comparison(
        a,
        b,
        tuple(difference(title, partial(_summary, key)) for key, title in SUMMARIES.items()),
        tuple(difference(name, partial(_size, number)) for number, name in enumerate(SIZES)),
        tuple(difference(name, partial(_class, number), len(names)) for number, name in enumerate(names)),
        tuple(order),
        changes,
    )


def _summary(key: str, draws: Draws) -> Floats:
    return draws.summaries[key]


def _size(number: int, draws: Draws) -> Floats:
    return draws.sizes[:, number]


def _class(number: int, draws: Draws) -> Floats:
    return draws.classes[:, number]


def check_same_data(a: StoredEvaluation, b: StoredEvaluation, of_a: PerImage, of_b: PerImage) -> None:
    """Refuse to compare evaluations of different data.

    Raises:
        InputError: the classes, the images or the ground truth differ; the message names the first difference.
    """
    names_a, names_b = ([row.name for row in e.classes] for e in (a, b))
    what = f"{a.title} and {b.title} are results of different data"
    if names_a != names_b:
        place = next((n for n, pair in enumerate(zip(names_a, names_b, strict=False)) if pair[0] != pair[1]), None)
        if place is None:
            raise InputError(f"{what}: {len(names_a)} classes and {len(names_b)}")
        raise InputError(f"{what}: class {place} is '{names_a[place]}' in one and '{names_b[place]}' in the other")
    if of_a.names != of_b.names:
        missing = [name for name in of_a.names if name not in set(of_b.names)]
        extra = [name for name in of_b.names if name not in set(of_a.names)]
        if not (missing or extra):
            raise InputError(f"{what}: the same images in another order; evaluate both on one split")
        example = f"{missing[0]} is in the first only" if missing else f"{extra[0]} is in the second only"
        raise InputError(f"{what} ({a.data}, {len(of_a):,} images, and {b.data}, {len(of_b):,}): {example}")
    true_a, true_b = _true_pixels(of_a), _true_pixels(of_b)
    for image, label in sorted(true_a.keys() | true_b.keys()):
        pixels = true_a.get((image, label), 0), true_b.get((image, label), 0)
        if pixels[0] != pixels[1]:
            raise InputError(
                f"{what}: the ground truth of {of_a.names[image]} has {pixels[0]:,} pixels of {names_a[label]} in one "
                f"and {pixels[1]:,} in the other"
            )


def _true_pixels(per_image: PerImage) -> dict[tuple[int, int], int]:
    return {(image, label): true for image, label, true in per_image.rows[:, [0, 1, 3]].tolist() if true}


def _difference(name: str, a: float, b: float, drawn: Floats, comparisons: int) -> Difference:
    ends, wide = interval(drawn), interval(drawn, 1 - (1 - LEVEL) / comparisons)
    sure = wide is not None and (wide[0] > 0 or wide[1] < 0)
    values = [None if np.isnan(value) else value for value in (a, b)]
    return Difference(name, values[0], values[1], (ends[0], ends[1]) if ends else None, sure)


def _surely(row: Difference, sign: int) -> bool:
    return row.sure and row.value is not None and sign * row.value > 0


def _named(row: Difference, noun: str) -> Difference:
    return replace(row, name=f"{row.name} {noun}")


def _row(row: Difference) -> list[str]:
    a, b = ("–" if value is None else f"{100 * value:.2f}" for value in (row.a, row.b))
    change = "–" if row.value is None else f"{100 * row.value:+.2f}{' *' if row.sure else ''}"
    ends = "–" if row.interval is None else f"{100 * row.interval[0]:+.2f} to {100 * row.interval[1]:+.2f}"
    return [row.name, a, b, change, ends]


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
