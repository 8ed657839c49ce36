"""`atrous data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import check_writable, write_json
from atrous.cli.data.common import DataSpec
from atrous.cli.options import DataClasses, DataOverlap, JsonFile
from atrous.cli.progress import progress_bar


def check(
    spec: DataSpec,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits to check; train, val, and test if there is one.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", help="Write a fixed copy into this new folder; the original is not changed."),
    ] = None,
    enlarge_masks: Annotated[
        bool,
        typer.Option("--enlarge-masks", help="In the copy, enlarge masks of half (a third, ...) their images' size."),
    ] = False,
    tolerance: Annotated[
        int | None,
        typer.Option(
            "--tolerance",
            min=1,
            max=127,
            help="In the copy, take masks smeared by JPEG by the nearest class, each channel within this; never exact.",
        ),
    ] = None,
    classes: DataClasses = None,
    overlap: DataOverlap = None,
    json: JsonFile = None,
) -> None:
    """Read every image and mask of a dataset, list everything that is wrong, and how to fix it.

    Exit code 0: healthy, perhaps with warnings and notes; 1: there are errors, which training would refuse or learn
    wrongly from; 2: no such dataset. With --fix, the exit code is about the copy.
    """
    from atrous.data.doctor.check import check
    from atrous.data.doctor.repair import repair
    from atrous.data.folder_writer import check_target
    from atrous.data.sources.registry import find_source
    from atrous.data.sources.spec import with_options
    from atrous.errors import InputError

    if (enlarge_masks or tolerance) and not fix:
        raise InputError("--enlarge-masks and --tolerance are about the copy that --fix FOLDER writes; add it")
    spec = with_options(spec, overlap=overlap, classes=classes)
    check_writable(json)
    if fix:
        check_target(fix, find_source(spec).root)
    with progress_bar("checking") as progress:
        checkup = check(spec, split or (), progress)
    typer.echo(checkup.text())
    facts = checkup.to_dict()
    if fix:
        with progress_bar("fixing") as progress:
            repaired = repair(checkup, fix, progress, enlarge_masks=enlarge_masks, tolerance=tolerance)
        typer.echo(f"\n{repaired.text()}\n")
        with progress_bar("checking") as progress:
            checkup = check(f"folder:{fix}", list(repaired.splits) if split else (), progress)
        typer.echo(checkup.text())
        facts |= {"repaired": repaired.to_dict() | {"healthy": checkup.healthy}}
    write_json(json, facts)
    if not checkup.healthy:
        raise typer.Exit(1)
