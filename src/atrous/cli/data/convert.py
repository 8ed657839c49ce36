"""`atrous data convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.data.common import DataSpec
from atrous.cli.options import DataClasses, DataOverlap
from atrous.cli.progress import progress_bar


def convert(
    spec: DataSpec,
    out: Annotated[Path, typer.Option("--out", help="New folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="folder (images, masks, labels.toml), coco, yolo, cvat, labelstudio, labelme, voc, geojson."
        ),
    ] = "folder",
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits to convert; train, val, and test if there is one.")
    ] = None,
    classes: DataClasses = None,
    overlap: DataOverlap = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the images instead of copying them.")] = False,
) -> None:
    """Write any dataset as a folder of images and palette PNG masks, or in the form of an annotation tool."""
    from atrous.data.export import convert
    from atrous.data.sources.spec import with_options

    spec = with_options(spec, overlap=overlap, classes=classes)
    with progress_bar("converting") as progress:
        converted = convert(spec, out, split or (), to=to, link=link, progress=progress)
    typer.echo(converted.text())
