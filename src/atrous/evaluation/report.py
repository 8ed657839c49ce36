"""An evaluation as a Markdown table that is also readable as plain text."""

from __future__ import annotations

import math

from atrous.evaluation.evaluate import Evaluation


def table(evaluation: Evaluation, *, min_images: int | None = None) -> str:
    """Format the metrics and the accuracy of other heads, then each class, and the missing classes; in percent.

    Args:
        evaluation: what to show.
        min_images: a second mean IoU is over the classes that occur in at least this many images; by default a tenth of
            the images, at most 10, and no such line for 10 images or fewer.
    """
    if min_images is None:
        min_images = evaluation.min_images
    metrics, confusion, names = evaluation.metrics, evaluation.confusion, evaluation.label_set.names
    frequent = confusion.frequent_classes(min_images)
    summary = [
        ["metric", "%"],
        ["pixel accuracy", percent(metrics.pixel_accuracy)],
        ["mean accuracy", percent(metrics.mean_accuracy)],
        ["mean IoU", percent(metrics.mean_iou)],
        ["frequency-weighted IoU", percent(metrics.frequency_weighted_iou)],
        *([[_selection(frequent, min_images), percent(confusion.mean_iou_over(min_images))]] if min_images > 1 else []),
        *(
            [f"{name}: pixel accuracy", percent(head.metrics().pixel_accuracy)]
            for name, head in evaluation.heads.items()
        ),
    ]
    classes = [["class", "images", "IoU %", "accuracy %"]]
    for name, images, iou, accuracy in zip(names, confusion.images, metrics.iou, metrics.accuracy, strict=True):
        classes.append([name, str(images), percent(iou), percent(accuracy)])
    return "\n\n".join([aligned(summary), *_boundaries(evaluation), aligned(classes), *_absent(evaluation)])


def markdown(evaluation: Evaluation, *, min_images: int | None = None) -> str:
    """Format an evaluation as a section of a generated result page, with what was evaluated and how."""
    heading = f"## {evaluation.model} on {evaluation.data}"
    how = (
        f"{evaluation.images} images, each at its own size, in one confusion matrix; "
        f"computed in {evaluation.precision} on {evaluation.device} in {evaluation.seconds:.1f} s "
        f"({evaluation.images / evaluation.seconds:.2f} images/s)."
    )
    return f"{heading}\n\n{how}\n\n{table(evaluation, min_images=min_images)}\n"


def percent(fraction: float) -> str:
    """Format a fraction, 0 to 1, as a percentage with two decimals; "–" if it is undefined."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def _selection(frequent: tuple[str, ...], min_images: int) -> str:
    background = frequent[:1] == ("background",)
    others = len(frequent) - background
    noun = "class" if others == 1 else "classes"
    return f"mean IoU over {'background and ' * background}the {others} {noun} in at least {min_images} images"


def _boundaries(evaluation: Evaluation) -> list[str]:
    """The metrics near boundaries, if they were counted."""
    if not evaluation.trimap:
        return []
    rows = [["largest distance from a boundary (pixels)", "mean IoU %", "pixel accuracy %"]]
    for width, band in evaluation.trimap.items():
        metrics = band.metrics()
        rows.append([str(width), percent(metrics.mean_iou), percent(metrics.pixel_accuracy)])
    return [aligned(rows)]


def _absent(evaluation: Evaluation) -> list[str]:
    """Which classes do not occur, and which of these were predicted nevertheless."""
    absent = evaluation.metrics.absent
    if not absent:
        return []
    lines = [f"{len(absent)} of {len(evaluation.label_set)} classes do not occur in this split: {', '.join(absent)}."]
    iou = dict(zip(evaluation.label_set.names, evaluation.metrics.iou, strict=True))
    spurious = [name for name in absent if not math.isnan(iou[name])]
    if spurious:
        lines.append(f"Predicted nevertheless, and counted as IoU 0 in the mean: {', '.join(spurious)}.")
        occurring = percent(evaluation.metrics.mean_iou_of_true_classes)
        lines.append(f"Mean IoU over the classes that do occur, as in the FCN paper on SIFT Flow: {occurring} %.")
    return ["\n".join(lines)]


def aligned(rows: list[list[str]]) -> str:
    """Format a Markdown table with aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        + " |"
        for row in rows
    ]
    rule = "| " + "-" * widths[0] + " | " + " | ".join("-" * (w - 1) + ":" for w in widths[1:]) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])
