"""One page for several evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atrous.evaluation.page.render import points, render
from atrous.evaluation.page.report_page import charts_of, command_of, origin_of
from atrous.evaluation.page.words import DEFINITIONS
from atrous.evaluation.stored import StoredEvaluation

COLUMNS = (
    "evaluation",
    "mean IoU %",
    "interval",
    "pixel accuracy %",
    "mean accuracy %",
    "boundary IoU %",
    "objects found %",
    "objects right %",
    "calibration error %",
)


def joined_page(several: Sequence[StoredEvaluation]) -> bytes:
    """Several evaluations side by side as one HTML file; a note says so if they are of different data.

    Args:
        several: at least one.
    """
    data = list(dict.fromkeys(f"{e.data}, {e.images:,} images" for e in several))
    best = max(several, key=lambda e: e.mean_iou if e.mean_iou is not None else -1.0)
    drawn = charts_of(several)
    rows = _class_rows(several)
    there = (("summary", "Summary", True), ("classes", "Classes", bool(rows)), ("where", "Where", bool(drawn)))
    return render(
        "joined.html",
        title=f"{len(several)} evaluations",
        sections=[(key, name) for key, name, shown in there if shown] + [("about", "How")],
        heading=f"{best.title} has the highest mean IoU, {points(best.mean_iou)} %",
        lead=f"On {data[0]}" if len(data) == 1 else "On different data",
        warning=""
        if len(data) == 1
        else f"These are results of different data, which do not compare: {'; '.join(data)}.",
        several=several,
        titles=[e.title for e in several],
        columns=COLUMNS,
        rows=[_row(e) for e in several],
        class_rows=rows,
        charts=drawn,
        about=[(e, command_of(e), origin_of(e)) for e in several],
        definitions=DEFINITIONS,
    )


def _row(e: StoredEvaluation) -> dict[str, Any]:
    d = e.details
    found = [d.boundary_iou.mean_iou, d.objects.recall, d.objects.precision, d.calibration.expected_error] if d else []
    return {
        "title": e.title,
        "iou": e.mean_iou,
        "ends": d.intervals.mean_iou if d else None,
        "shares": [e.pixel_accuracy, e.mean_accuracy, *(found or [None] * 4)],
    }


def _class_rows(several: Sequence[StoredEvaluation]) -> list[tuple[str, list[float | None], float | None]]:
    """The IoU of each class that an evaluation has, and the highest; None if there is nothing to choose from."""
    tables = [{row.name: row.iou for row in e.classes} for e in several]
    rows = []
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table.get(name) for table in tables]
        defined = {value for value in values if value is not None}
        rows.append((name, values, max(defined) if len(defined) > 1 else None))
    return rows
