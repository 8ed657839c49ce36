"""`atrous data tile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.data.common import DataSpec
from atrous.cli.options import DataClasses, DataOverlap
from atrous.cli.progress import progress_bar


def tile(
    spec: DataSpec,
    out: Annotated[Path, typer.Option("--out", help="New folder to write.")],
    size: Annotated[int, typer.Option("--size", help="Side of a tile in pixels.")] = 512,
    shared: Annotated[int, typer.Option("--shared", help="Pixels that neighbouring tiles share at least.")] = 0,
    keep_empty: Annotated[
        float, typer.Option("--keep-empty", help="Share of the tiles without an object that is kept.")
    ] = 1.0,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits to cut; train, val, and test if there is one.")
    ] = None,
    classes: DataClasses = None,
    overlap: DataOverlap = None,
) -> None:
    """Cut large images and their masks into tiles, as a folder dataset with the same splits."""
    from atrous.data.sources.spec import with_options
    from atrous.data.tiling import tile

    spec = with_options(spec, overlap=overlap, classes=classes)
    with progress_bar("cutting") as progress:
        tiled = tile(spec, out, tuple(split or ()), size=size, overlap=shared, keep_empty=keep_empty, progress=progress)
    typer.echo(tiled.text())
