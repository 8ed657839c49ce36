"""Writing pages into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from atrous.data.dataset import Dataset
from atrous.evaluation.compare import Comparison
from atrous.evaluation.page.cases import Cases, ends, segment_again
from atrous.evaluation.page.compare_page import changed_most, compare_page
from atrous.evaluation.page.report_page import report_page
from atrous.evaluation.stored import StoredEvaluation, parse_evaluation
from atrous.files import write_atomically
from atrous.inference.prepare import Precision
from atrous.inference.test_time import Inference
from atrous.models.base import SegmentationModel

PAGE = "report.html"


@dataclass(frozen=True)
class Compared:
    """A model of a comparison, with its evaluation."""

    model: SegmentationModel
    evaluation: StoredEvaluation


def write_comparison(
    file: Path, comparison: Comparison, compared: Sequence[Compared], dataset: Dataset | None, precision: Precision
) -> None:
    """Write a comparison as an HTML file, with the images that changed most if the models are at hand.

    Args:
        file: the page.
        comparison: what it shows.
        compared: the two models; none for stored evaluations.
        dataset: what they were evaluated on; None for stored evaluations.
        precision: as in the evaluations.
    """
    cases = Cases()
    if dataset is not None and compared:
        gains, losses = changed_most(comparison)
        captions = {index: f"IoU {100 * comparison.changes[index]:+.1f} points" for index in (*gains, *losses)}
        models = {"a": compared[0].model, "b": compared[1].model}
        cases = segment_again(models, dataset, captions, Inference(), precision)
    write_atomically(file, compare_page(comparison, dataset.label_set if dataset else None, cases))


def write_report(
    folder: Path,
    facts: Mapping[str, Any],
    model: SegmentationModel,
    dataset: Dataset,
    inference: Inference,
    precision: Precision,
    table: Tensor | None = None,
) -> Path:
    """Write the report of an evaluation, with its worst and best images.

    Args:
        folder: of the report.
        facts: the evaluation, from :func:`atrous.evaluation.stored.to_facts`.
        model: the model that was evaluated.
        dataset: what it was evaluated on.
        inference: as in the evaluation.
        precision: as in the evaluation.
        table: the data's label of each of the model's, where they differ
            (:func:`atrous.evaluation.classes.label_table`).

    Returns:
        The page, ``FOLDER/report.html``.
    """
    evaluation = parse_evaluation(facts, "", folder)
    per_image = evaluation.per_image()
    worst, best = ends(per_image.ranked())
    mean_iou = per_image.mean_iou()
    captions = {index: f"IoU {100 * mean_iou[index]:.1f} %" for index in (*worst, *best)}
    cases = segment_again({"prediction": model}, dataset, captions, inference, precision, table)
    page = folder / PAGE
    write_atomically(page, report_page(evaluation, dataset.label_set, worst, best, cases))
    return page
