"""The report of one evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from atrous.evaluation.page import charts
from atrous.evaluation.page.cases import Cases
from atrous.evaluation.page.layers import ERRORS, css_color, encode
from atrous.evaluation.page.render import LAYERS, points, render
from atrous.evaluation.page.words import DEFINITIONS, confusions, findings
from atrous.evaluation.stored import StoredEvaluation
from atrous.labels import LabelSet
from atrous.viz import lightened

IN_MATRIX = 30
"""Classes in the confusion matrix; of more, those with the most wrong pixels are shown."""


def report_page(
    e: StoredEvaluation, label_set: LabelSet, worst: Sequence[int], best: Sequence[int], cases: Cases
) -> bytes:
    """The report of an evaluation as one HTML file.

    Args:
        e: the evaluation.
        label_set: its classes, for their colours.
        worst: indices of the worst images, the worst first.
        best: indices of the best images.
        cases: these images, as far as they could be read.
    """
    shown = [index for index in (*worst, *best) if index in cases.shown]
    encoded = dict(zip(shown, encode([cases.shown[index] for index in shown], label_set), strict=True))
    sections = {
        "summary": "Summary",
        "classes": "Classes",
        "confusion": "Confusion",
        "where": "Where",
        "images": "Images",
    }
    matrix, drawn = _matrix(e), charts_of([e])
    there = {"classes": bool(e.classes), "confusion": bool(matrix), "where": bool(drawn), "images": bool(shown)}
    return render(
        "report.html",
        title=f"{e.title} on {e.data}",
        sections=[(key, name) for key, name in sections.items() if there.get(key, True)] + [("about", "Model")],
        e=e,
        i=e.details.intervals if e.details else None,
        summary=_summary(e),
        findings=findings(e),
        class_columns=("class", "IoU %", "accuracy %", "boundary IoU %", "found %", "right %", "images", "objects"),
        class_rows=_class_rows(e),
        swatches=[*map(css_color, lightened(label_set).colors)],
        matrix=matrix,
        confusions=confusions(e, 8),
        charts=drawn,
        layers=list(LAYERS.items()),
        errors=[(name, css_color(color)) for name, color in ERRORS.values()],
        worst=[encoded[index] for index in worst if index in encoded],
        best=[encoded[index] for index in best if index in encoded],
        lost=cases.lost,
        card=_card(e),
        command=command_of(e),
        origin=origin_of(e),
        recipe=json.dumps(e.card["recipe"], indent=2) if e.card.get("recipe") else "",
        definitions=DEFINITIONS,
    )


def command_of(e: StoredEvaluation) -> str:
    """The command that made an evaluation."""
    program, _, rest = str(e.provenance.get("command", "")).partition(" ")
    return f"{'atrous' if program == '__main__.py' else program} {rest}".strip() or "not recorded"


def _summary(e: StoredEvaluation) -> list[tuple[str, float | None, Any, str]]:
    """Name, value, interval and a note of the figures beside mean IoU."""
    i = e.details.intervals if e.details else None
    rows: list[tuple[str, float | None, Any, str]] = [
        ("pixel accuracy", e.pixel_accuracy, i and i.pixel_accuracy, ""),
        ("mean accuracy", e.mean_accuracy, i and i.mean_accuracy, ""),
        ("frequency-weighted IoU", e.frequency_weighted_iou, i and i.frequency_weighted_iou, ""),
    ]
    if frequent := e.mean_iou_of_frequent_classes:
        note = f"{len(frequent.classes)} in at least {frequent.min_images} images"
        rows.append(("mean IoU, frequent classes", frequent.mean_iou, None, note))
    if e.details:
        d = e.details
        rows += [
            ("boundary IoU", d.boundary_iou.mean_iou, d.intervals.boundary_iou, ""),
            ("objects found", d.objects.recall, None, f"of {sum(row.objects for row in d.objects.classes):,}"),
            ("objects right", d.objects.precision, None, f"of {sum(row.predicted for row in d.objects.classes):,}"),
            ("calibration error", d.calibration.expected_error, None, "0 is best"),
        ]
    return rows


def _class_rows(e: StoredEvaluation) -> list[dict[str, Any]]:
    d = e.details
    objects = {row.name: row for row in d.objects.classes} if d else {}
    rows = []
    for number, row in enumerate(e.classes):
        found = objects.get(row.name)
        rows.append(
            {
                "name": row.name,
                "iou": row.iou,
                "ends": d.intervals.classes[number] if d else None,
                "shares": [
                    row.accuracy,
                    d.boundary_iou.classes[number] if d else None,
                    found.recall if found else None,
                    found.precision if found else None,
                ],
                "counts": [row.images, found.objects if found else None],
            }
        )
    return rows


def _matrix(e: StoredEvaluation) -> dict[str, Any] | None:
    """The confusion matrix by rows; None for a row without pixels."""
    if not e.confusion:
        return None
    counts = np.array(e.confusion, np.int64)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    kept = np.sort(np.argsort(-wrong, kind="stable")[:IN_MATRIX])
    totals = counts.sum(axis=1)
    rows = [[float(counts[i, j] / totals[i]) if totals[i] else None for j in kept] for i in kept]
    return {"names": [e.classes[i].name for i in kept], "rows": rows, "left_out": len(counts) - len(kept)}


def charts_of(several: Sequence[StoredEvaluation]) -> list[dict[str, Any]]:
    """The charts of one or several evaluations: along boundaries, by size, and reliability."""
    found = []
    bands = [(e, [band for band in e.trimap if band.mean_iou is not None]) for e in several]
    if any(len(band) > 1 for _, band in bands):
        lines = [charts.Line(e.title, [(b.width, b.mean_iou or 0) for b in band]) for e, band in bands]
        found.append(
            {
                "heading": "Near boundaries",
                "text": "Mean IoU of the pixels near a true boundary only. It rises where boundaries are what is hard.",
                "chart": charts.boundary_curve(lines, "Mean IoU over distance from a boundary"),
                "columns": ["pixels", *(e.title for e, _ in bands)],
                "rows": _aligned([{f"{b.width}": points(b.mean_iou) for b in band} for _, band in bands]),
            }
        )
    detailed = [(e, e.details) for e in several if e.details]
    if detailed:
        found += [_sizes_chart(detailed), _reliability_chart(detailed)]
    return found


def _sizes_chart(detailed: Sequence[tuple[StoredEvaluation, Any]]) -> dict[str, Any]:
    groups = [
        (
            f"{size.name} ({size.objects:,})",
            [charts.Bar(e.title, d.objects.sizes[n].iou, d.intervals.sizes[n]) for e, d in detailed],
        )
        for n, size in enumerate(detailed[0][1].objects.sizes)
    ]
    tables = [{size.name: points(size.iou) for size in d.objects.sizes} for _, d in detailed]
    return {
        "heading": "By size of the object",
        "text": "Mean IoU of single objects, each weighing the same, with the number of true ones.",
        "chart": charts.bars(groups, "Mean IoU of small, medium and large objects"),
        "columns": ["objects", *(e.title for e, _ in detailed)],
        "rows": _aligned(tables),
    }


def _reliability_chart(detailed: Sequence[tuple[StoredEvaluation, Any]]) -> dict[str, Any]:
    lines, tables = [], []
    for e, d in detailed:
        bins = [entry for entry in d.calibration.bins if entry.pixels]
        lines.append(charts.Line(e.title, [(entry.confidence, entry.accuracy) for entry in bins]))
        tables.append({f"{points(entry.confidence)}": points(entry.accuracy) for entry in bins})
    total = sum(entry.pixels for entry in detailed[0][1].calibration.bins) or 1
    one = len(detailed) == 1
    shares = [entry.pixels / total for entry in detailed[0][1].calibration.bins] if one else []
    return {
        "heading": "Reliability",
        "text": "How often it is right when it is this sure: below the dashed line it is overconfident."
        + (" The bars are the share of the pixels." if one else ""),
        "chart": charts.reliability_curve(lines, shares, "Accuracy over confidence"),
        "columns": ["confidence %", "accuracy %"] if one else None,
        "rows": _aligned(tables) if one else None,
    }


def _aligned(tables: Sequence[dict[str, str]]) -> list[list[str]]:
    """Rows of a table with a column for each dictionary."""
    keys = list(dict.fromkeys(key for table in tables for key in table))
    return [[key, *(table.get(key, "–") for table in tables)] for key in keys]


def _card(e: StoredEvaluation) -> list[tuple[str, str]]:
    """What the model's card says, as far as it says it."""
    card = e.card
    own = card.get("metrics") or {}
    where = f"{points(own['mean_iou'])} % mean IoU on {own.get('data', '?')}" if own.get("mean_iou") is not None else ""
    rows = {
        "Model": card.get("description") or e.model,
        "Training data": card.get("training_data", ""),
        "Its card's own figure": where,
        "Trained with": (card.get("provenance") or {}).get("command", ""),
    }
    return [(name, str(value)) for name, value in rows.items() if value]


def origin_of(e: StoredEvaluation) -> list[tuple[str, str]]:
    """Where an evaluation comes from, as far as it was recorded: names and values."""
    origin = e.provenance
    versions = ", ".join(f"{name} {number}" for name, number in (origin.get("versions") or {}).items())
    rows = {
        "Data": f"{e.data}, {e.images:,} images",
        "Computed": f"in {e.precision} on {e.device}, {e.seconds:.1f} s" if e.seconds is not None else "",
        "Commit": origin.get("commit") or "",
        "Hardware": origin.get("hardware", ""),
        "Software": f"Python {origin.get('python', '?')}, {versions}" if versions else "",
    }
    return [(name, str(value)) for name, value in rows.items() if value]
