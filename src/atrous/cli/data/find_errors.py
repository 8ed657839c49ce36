"""`atrous data find-errors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import check_writable, load_network
from atrous.cli.options import Data, Device, Model, Precision
from atrous.cli.progress import progress_bar

LISTED = 20


def find_errors(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="Split to check; several are joined by +.")] = "train",
    out: Annotated[Path, typer.Option("--out", help="Folder for errors.html and errors.csv.")] = Path("find-errors"),
    device: Device = None,
    precision: Precision = "float32",
) -> None:
    """Rank masks that are probably wrong: missing or surplus objects, swapped classes, masks of other images.

    The model should know the classes, and is best one that was not trained on these masks.
    """
    from atrous.data.opening import open_dataset
    from atrous.evaluation.find_errors import find_errors
    from atrous.evaluation.page.errors_page import write_errors

    check_writable(out / "errors.csv")
    dataset = open_dataset(data, split)
    network = load_network(model, device)
    with progress_bar("checking") as progress:
        suspects = find_errors(network, dataset, precision=precision, progress=progress)
    for number, suspect in enumerate(suspects[:LISTED], 1):
        typer.echo(f"{number:3}. {suspect.name}: {suspect.sentence()}")
    if not suspects:
        typer.echo("no mask disagrees with the model")
    page = write_errors(out, suspects, network, dataset, precision)
    typer.echo(
        f"\n{len(suspects):,} of {len(dataset):,} masks, the most suspicious first: {page}, {out / 'errors.csv'}"
    )
