"""`atrous data split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.data.common import DataSpec
from atrous.cli.options import DataClasses, DataOverlap
from atrous.cli.progress import progress_bar


def split(
    spec: DataSpec,
    out: Annotated[Path, typer.Option("--out", help="New folder for the lists, such as the dataset's own 'splits'.")],
    val: Annotated[float, typer.Option("--val", help="Share of the images in val.")] = 0.2,
    test: Annotated[float, typer.Option("--test", help="Share of the images in test.")] = 0.0,
    folds: Annotated[int, typer.Option("--folds", help="Instead, folds of a cross-validation.")] = 0,
    group: Annotated[
        str,
        typer.Option("--group", help="Pattern on names: the same match (scene, patient) stays together."),
    ] = "",
    source_split: Annotated[str, typer.Option("--split", help="Split to draw from; several are joined by +.")] = "all",
    seed: Annotated[int, typer.Option("--seed", help="Draws other splits.")] = 0,
    classes: DataClasses = None,
    overlap: DataOverlap = None,
) -> None:
    """Draw train, val and test: each class in its share of the images, groups and near duplicates together."""
    from atrous.data.sources.spec import with_options
    from atrous.data.splitting import draw_splits

    spec = with_options(spec, overlap=overlap, classes=classes)
    with progress_bar("reading") as progress:
        drawn = draw_splits(
            spec, val=val, test=test, folds=folds, group=group, split=source_split, seed=seed, progress=progress
        )
    drawn.write(out)
    typer.echo(f"{drawn.text()}\nlists: {out}")
