"""`atrous compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atrous.cli.common import check_writable, load_network, write_json
from atrous.cli.options import Device, JsonFile, Precision
from atrous.cli.progress import progress_bar

if TYPE_CHECKING:  # commands import what they need when they run: `atrous --help` must not wait for torch
    from atrous.data.dataset import Dataset
    from atrous.evaluation.page.writing import Compared


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model, or a stored evaluation (JSON, report, run folder).")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    data: Annotated[
        str | None, typer.Option("--data", help="A dataset to evaluate both models on; without it, A and B are stored.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split to evaluate on.")] = "val",
    report: Annotated[Path | None, typer.Option("--report", help="Write the comparison into this HTML file.")] = None,
    json: JsonFile = None,
    device: Device = None,
    precision: Precision = "float32",
) -> None:
    """Compare two models on the same images: the difference with its interval, in words and figures.

    In the tables, a * marks differences that are certain; for single classes, among so many of them.
    """
    from atrous.data.opening import open_dataset
    from atrous.evaluation.compare import compare
    from atrous.evaluation.page.writing import write_comparison
    from atrous.evaluation.stored import read_evaluation

    check_writable(report, json)
    dataset = open_dataset(data, split) if data else None
    if dataset:
        compared = [_evaluate(name, title, dataset, device, precision) for name, title in ((a, "A"), (b, "B"))]
        comparison = compare(compared[0].evaluation, compared[1].evaluation)
    else:
        compared = []
        comparison = compare(read_evaluation(a), read_evaluation(b))
    typer.echo(comparison.text())
    write_json(json, comparison.to_dict())
    if report:
        write_comparison(report, comparison, compared, dataset, precision)
        typer.echo(f"\nreport: {report}")


def _evaluate(name: str, title: str, dataset: Dataset, device: str | None, precision: Precision) -> Compared:
    from atrous.evaluation.evaluate import evaluate
    from atrous.evaluation.page.writing import Compared
    from atrous.evaluation.stored import parse_evaluation, to_facts

    model = load_network(name, device)
    with progress_bar(f"evaluating {title}") as progress:
        evaluation = evaluate(model, dataset, precision=precision, progress=progress, details=True)
    return Compared(model, parse_evaluation(to_facts(evaluation, model.card, name), name, name))
