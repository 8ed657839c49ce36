"""Looking over datasets: data check, data stats, data convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import JsonFile, bar, check_writable, write_json

data_app = typer.Typer(no_args_is_help=True)


@data_app.callback()
def _data() -> None:
    """Look over datasets before training on them."""


DataSpec = Annotated[str, typer.Argument(metavar="SPEC", help="A reader and a place: folder:PATH, voc:PATH, ...")]


@data_app.command("check")
def data_check(
    spec: DataSpec,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits to check; train, val, and test if there is one.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", help="Write a mended copy into this new folder; the original stays as it is."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Read every image and mask of a dataset and name all that is wrong with it, with what mends it.

    Exit code 0: healthy, perhaps with warnings and notes; 1: there are errors, which training would refuse or learn
    wrongly from; 2: no such dataset. With --fix, the exit code is about the copy.
    """
    from atrous.data.doctor.check import check
    from atrous.data.doctor.repair import mend
    from atrous.data.folder_writer import check_target
    from atrous.data.sources.registry import find_source

    check_writable(json)
    if fix:
        check_target(fix, find_source(spec).root)
    with bar("checking") as progress:
        checkup = check(spec, split or (), progress)
    typer.echo(checkup.text())
    facts = checkup.to_dict()
    if fix:
        with bar("mending") as progress:
            mended = mend(checkup, fix, progress)
        typer.echo(f"\n{mended.text()}\n")
        with bar("checking") as progress:
            checkup = check(f"folder:{fix}", list(mended.splits) if split else (), progress)
        typer.echo(checkup.text())
        facts |= {"mended": mended.to_dict() | {"healthy": checkup.healthy}}
    write_json(json, facts)
    if not checkup.healthy:
        raise typer.Exit(1)


@data_app.command("stats")
def data_stats(
    spec: DataSpec,
    split: Annotated[str, typer.Option("--split", help="Split to count; several joined by + are one.")] = "train",
    json: JsonFile = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw a contact sheet, masks over images, into this PNG.")
    ] = None,
) -> None:
    """Count classes and sizes, and suggest class weights; exit code 1 if a pair could not be read."""
    from io import BytesIO

    from PIL import Image

    from atrous.data.contact_sheet import choose, contact_sheet
    from atrous.data.opening import open_dataset
    from atrous.data.stats import measure
    from atrous.files import write_atomically

    check_writable(json)
    check_writable(sheet)
    dataset = open_dataset(spec, split)
    with bar("counting") as progress:
        stats = measure(dataset, progress)
    typer.echo(stats.text())
    write_json(json, stats.to_dict())
    if sheet and stats.places:
        images = [stats.places[row] for row in choose(stats.pixels)]
        Image.fromarray(contact_sheet(dataset, images)).save(png := BytesIO(), "PNG")
        write_atomically(sheet, png.getvalue())
        typer.echo(f"contact sheet: {sheet}")
    for problem in stats.broken:
        typer.secho(problem, fg="red", err=True)
    if stats.broken:
        typer.secho(f"`atrous data check {spec}` says what mends these", fg="yellow", err=True)
        raise typer.Exit(1)


@data_app.command("convert")
def data_convert(
    spec: DataSpec,
    out: Annotated[Path, typer.Option("--out", help="The new folder to write: images, masks, labels.toml, splits.")],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits to convert; train, val, and test if there is one.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard links to the images in place of copies.")] = False,
) -> None:
    """Write any dataset as a folder: dataset, its masks as palette PNGs whose values are the classes."""
    from atrous.data.export import convert

    with bar("converting") as progress:
        converted = convert(spec, out, split or (), link=link, progress=progress)
    typer.echo(converted.text())
