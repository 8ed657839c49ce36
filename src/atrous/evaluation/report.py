"""An evaluation as a table: easy to read as it is, and markdown at the same time."""

from __future__ import annotations

import math

from atrous.evaluation.evaluate import Evaluation


def table(evaluation: Evaluation, *, min_images: int = 10) -> str:
    """The four scores and the accuracy of further heads, then each class, and what is missing; in percent.

    Args:
        evaluation: what to show.
        min_images: a further mean is given over the classes that occur in at least so many images.
    """
    scores, confusion, names = evaluation.metrics, evaluation.confusion, evaluation.label_set.names
    further = evaluation.further
    frequent = confusion.frequent_classes(min_images)
    summary = [
        ["score", "%"],
        ["pixel accuracy", percent(scores.pixel_accuracy)],
        ["mean accuracy", percent(scores.mean_accuracy)],
        ["mean IoU", percent(scores.mean_iou)],
        ["frequency-weighted IoU", percent(scores.frequency_weighted_iou)],
        [_selection(frequent, min_images), percent(confusion.mean_iou_over(min_images))],
        *([f"{name}: pixel accuracy", percent(head.metrics().pixel_accuracy)] for name, head in further.items()),
    ]
    classes = [["class", "images", "IoU %", "accuracy %"]]
    for name, images, iou, accuracy in zip(names, confusion.images, scores.iou, scores.accuracy, strict=True):
        classes.append([name, str(images), percent(iou), percent(accuracy)])
    return "\n\n".join([aligned(summary), *_boundaries(evaluation), aligned(classes), *_absent(evaluation)])


def markdown(evaluation: Evaluation, *, min_images: int = 10) -> str:
    """The table of an evaluation as a section of a generated result file, with what was judged and how."""
    heading = f"## {evaluation.model} on {evaluation.data}"
    how = (
        f"{evaluation.images} images, each at its own size, in one confusion matrix; "
        f"computed in {evaluation.precision} on {evaluation.device} in {evaluation.seconds:.1f} s "
        f"({evaluation.images / evaluation.seconds:.2f} images/s)."
    )
    return f"{heading}\n\n{how}\n\n{table(evaluation, min_images=min_images)}\n"


def percent(share: float) -> str:
    """0 to 1 as a percentage with two decimals; "–" where it is not defined."""
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def _selection(frequent: tuple[str, ...], min_images: int) -> str:
    background = frequent[:1] == ("background",)
    others = len(frequent) - background
    noun = "class" if others == 1 else "classes"
    return f"mean IoU over {'background and ' * background}the {others} {noun} in at least {min_images} images"


def _boundaries(evaluation: Evaluation) -> list[str]:
    """The scores near boundaries, where they were asked for."""
    if not evaluation.trimap:
        return []
    rows = [["pixels from a boundary, at most", "mean IoU %", "pixel accuracy %"]]
    for width, band in evaluation.trimap.items():
        scores = band.metrics()
        rows.append([str(width), percent(scores.mean_iou), percent(scores.pixel_accuracy)])
    return [aligned(rows)]


def _absent(evaluation: Evaluation) -> list[str]:
    """Which classes do not occur, and which of these were predicted all the same."""
    absent = evaluation.metrics.absent
    if not absent:
        return []
    told = [f"{len(absent)} of {len(evaluation.label_set)} classes do not occur in this split: {', '.join(absent)}."]
    iou = dict(zip(evaluation.label_set.names, evaluation.metrics.iou, strict=True))
    invented = [name for name in absent if not math.isnan(iou[name])]
    if invented:
        told.append(f"Predicted all the same, and counted as IoU 0 in the mean: {', '.join(invented)}.")
        judged = percent(evaluation.metrics.mean_iou_of_true_classes)
        told.append(f"Mean IoU over the classes that do occur, as the FCN paper judges SIFT Flow: {judged} %.")
    return ["\n".join(told)]


def aligned(rows: list[list[str]]) -> str:
    """A markdown table whose columns line up: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        + " |"
        for row in rows
    ]
    rule = "| " + "-" * widths[0] + " | " + " | ".join("-" * (w - 1) + ":" for w in widths[1:]) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])
