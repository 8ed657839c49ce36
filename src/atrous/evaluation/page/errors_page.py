"""The page of masks that are probably wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atrous.data.dataset import Dataset, dataset_name
from atrous.evaluation.find_errors import Suspect, to_csv
from atrous.evaluation.page.cases import segment_again
from atrous.evaluation.page.layers import ERRORS, css_color, encode
from atrous.evaluation.page.render import LAYERS, render
from atrous.files import write_atomically
from atrous.inference.prepare import Precision
from atrous.inference.test_time import Inference
from atrous.models.base import SegmentationModel

SHOWN = 36
IN_TABLE = 300


def write_errors(
    folder: Path, suspects: Sequence[Suspect], model: SegmentationModel, dataset: Dataset, precision: Precision
) -> Path:
    """Write masks that are probably wrong as ``errors.html`` and ``errors.csv``.

    Args:
        folder: of both.
        suspects: from :func:`atrous.evaluation.find_errors.find_errors`.
        model: the model that found them.
        dataset: the dataset.
        precision: what the network computes in.

    Returns:
        The page.
    """
    write_atomically(folder / "errors.csv", to_csv(suspects))
    first = suspects[:SHOWN]
    captions = {suspect.index: f"{number}. {suspect.sentence()}" for number, suspect in enumerate(first, 1)}
    cases = segment_again({"prediction": model}, dataset, captions, Inference(), precision)
    boxed = [replace(cases.shown[s.index], box=s.where.box) for s in first if s.index in cases.shown]
    page = folder / "errors.html"
    content = render(
        "errors.html",
        title=f"Masks that are probably wrong in {dataset_name(dataset)}",
        sections=[("summary", "Summary"), ("images", "Images"), ("table", "Ranking")],
        data=dataset_name(dataset),
        model=model.name,
        total=len(dataset),
        suspects=suspects,
        rows=suspects[:IN_TABLE],
        cases=encode(boxed, dataset.label_set),
        lost=cases.lost,
        layers=list(LAYERS.items()),
        errors=[(name, css_color(color)) for name, color in ERRORS.values()],
    )
    write_atomically(page, content)
    return page
