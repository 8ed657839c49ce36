"""The curves of a run, from its log: a table for spreadsheets and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from atrous.files import write_atomically

TRAINING = ("loss", "lr", "gradient_norm", "images_per_second", "waiting")
VALIDATION = ("validation_loss", "mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
_BLUE, _ORANGE, _GREY = "#1f77b4", "#d95f02", "#5f6368"


def write_curves(out: Path) -> None:
    """Write ``OUT/curves.csv`` and ``OUT/curves.png`` from ``OUT/log.jsonl``.

    The table has a row for each line of the log: a training row or a validation row; the figure shows the losses above
    and the metrics below.
    """
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    write_atomically(out / "curves.csv", _table(lines).encode())
    write_atomically(out / "curves.png", _figure(lines))


def _table(lines: Iterable[Mapping[str, Any]]) -> str:
    rows = [{**line, **_classes(line)} for line in lines]
    classes = list(dict.fromkeys(key for row in rows for key in row if key.startswith("iou ")))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *TRAINING, *VALIDATION, *classes], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _classes(line: Mapping[str, Any]) -> dict[str, float | None]:
    return {f"iou {entry['name']}": entry["iou"] for entry in line.get("classes", ())}


def _figure(lines: list[dict[str, Any]]) -> bytes:
    from matplotlib.figure import Figure  # it takes long to import, and `--dry-run` needs none

    figure = Figure(figsize=(8, 6))  # with fixed margins: a computed layout takes as long as all the drawing
    margins = {"left": 0.1, "right": 0.98, "top": 0.98, "bottom": 0.08, "hspace": 0.07}
    losses, metrics = figure.subplots(2, 1, sharex=True, gridspec_kw=margins)
    for axes, key, title, colour, factor in (
        (losses, "loss", "training loss", _GREY, 1),
        (losses, "validation_loss", "validation loss", _ORANGE, 1),
        (metrics, "mean_iou", "mean IoU", _BLUE, 100),
        (metrics, "pixel_accuracy", "pixel accuracy", _GREY, 100),
    ):
        points = [(line["step"], factor * line[key]) for line in lines if line.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=title, marker="." if key != "loss" else "")
    for axes, name in ((losses, "loss"), (metrics, "%")):
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    metrics.set_xlabel("step")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
