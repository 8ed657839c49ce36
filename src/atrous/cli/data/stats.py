"""`atrous data stats`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import check_writable, write_json
from atrous.cli.data.common import DataSpec
from atrous.cli.options import DataClasses, DataOverlap, JsonFile
from atrous.cli.progress import progress_bar


def stats(
    spec: DataSpec,
    split: Annotated[str, typer.Option("--split", help="Split to count; several are joined by +.")] = "train",
    classes: DataClasses = None,
    overlap: DataOverlap = None,
    json: JsonFile = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw a contact sheet, masks over images, into this PNG.")
    ] = None,
) -> None:
    """Count classes and sizes, measure channels, and suggest class weights; exit code 1 if a pair could not be read."""
    from io import BytesIO

    from PIL import Image

    from atrous.data.contact_sheet import choose, contact_sheet
    from atrous.data.opening import open_dataset
    from atrous.data.sources.spec import with_options
    from atrous.data.stats import measure
    from atrous.files import write_atomically

    check_writable(json, sheet)
    dataset = open_dataset(with_options(spec, overlap=overlap, classes=classes), split)
    with progress_bar("counting") as progress:
        found = measure(dataset, progress)
    typer.echo(found.text())
    write_json(json, found.to_dict())
    if sheet and found.places:
        images = [found.places[row] for row in choose(found.pixels)]
        Image.fromarray(contact_sheet(dataset, images)).save(png := BytesIO(), "PNG")
        write_atomically(sheet, png.getvalue())
        typer.echo(f"contact sheet: {sheet}")
    for problem in found.broken:
        typer.secho(problem, fg="red", err=True)
    if found.broken:
        typer.secho(f"`atrous data check {spec}` says how to fix these", fg="yellow", err=True)
        raise typer.Exit(1)
