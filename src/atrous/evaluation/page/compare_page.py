"""The page of a comparison."""

from __future__ import annotations

from dataclasses import replace

from atrous.evaluation.compare import Comparison, Difference
from atrous.evaluation.page import charts
from atrous.evaluation.page.cases import SHOWN, Cases
from atrous.evaluation.page.layers import css_color, encode
from atrous.evaluation.page.render import render
from atrous.labels import LabelSet

LAYERS = {"truth": "ground truth", "a": "A", "b": "B", "none": "photo"}
CLASSES = 30
"""Classes in the chart, those with the largest differences."""


def changed_most(c: Comparison) -> tuple[list[int], list[int]]:
    """The images with the largest gains and the largest losses, 12 each at most."""
    gains = [index for index in reversed(c.images) if c.changes[index] > 0]
    losses = [index for index in c.images if c.changes[index] < 0]
    return gains[:SHOWN], losses[:SHOWN]


def compare_page(c: Comparison, label_set: LabelSet | None, cases: Cases) -> bytes:
    """A comparison as one HTML file.

    Args:
        c: the comparison.
        label_set: the classes, where there are images to show.
        cases: the images that changed most, with the masks ``a`` and ``b``.
    """
    gains, losses = changed_most(c)
    shown = [index for index in (*gains, *losses) if index in cases.shown]
    images = encode([cases.shown[index] for index in shown], label_set) if label_set else []
    encoded = dict(zip(shown, images, strict=True))
    names = c.a.per_image().names
    defined = [row for row in c.classes if row.value is not None]
    changed = [row for row in defined if row.value] or defined
    largest = sorted(changed, key=lambda row: -abs(row.value or 0))[:CLASSES]
    sizes = [replace(row, name=f"{row.name} objects") for row in c.sizes]
    return render(
        "compare.html",
        title=f"{c.a.title} and {c.b.title} on {c.a.data}",
        sections=[("summary", "Verdict"), ("table", "Figures"), ("images", "Images")],
        c=c,
        overall=charts.differences([_point(row) for row in (*c.summary, *sizes)], "Differences of B and A"),
        by_class=charts.differences([_point(row) for row in largest], "Differences of IoU by class"),
        rows=[*c.summary, *sizes, *defined],
        layers=list(LAYERS.items()),
        gained=[encoded[index] for index in gains if index in encoded],
        lost_most=[encoded[index] for index in losses if index in encoded],
        lost=cases.lost,
        changed=[(names[index], float(c.changes[index])) for index in (*gains, *losses)],
        swatches=[css_color(color) for color in label_set.colors] if label_set else [],
    )


def _point(row: Difference) -> charts.Point:
    ends = row.interval and (100 * row.interval[0], 100 * row.interval[1])
    return charts.Point(row.name, None if row.value is None else 100 * row.value, ends, row.sure)
