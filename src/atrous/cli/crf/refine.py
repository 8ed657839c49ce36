"""`atrous crf refine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from atrous.cli.common import print_report, read_classes
from atrous.cli.options import Inputs, Overlay, OverwriteResults, ResultFolder
from atrous.cli.progress import progress_bar
from atrous.errors import InputError


def refine(
    inputs: Inputs,
    predictions: Annotated[
        Path,
        typer.Option("--predictions", help="Folder with NAME.npy (C, H, W), NAME.npz or NAME.png for each image NAME."),
    ],
    out: ResultFolder,
    kind: Annotated[
        Literal["probabilities", "logits"], typer.Option("--kind", help="What the .npy and .npz files contain.")
    ] = "probabilities",
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="PNGs are hard labels that are right with this probability.")
    ] = None,
    orientation: Annotated[
        Literal["upright", "stored"] | None,
        typer.Option(
            "--orientation",
            help="For images that EXIF turns: whether predictions were made on the image as shown or as stored.",
        ),
    ] = None,
    classes: Annotated[Path | None, typer.Option("--classes", help="Text file of class names, one per line.")] = None,
    published: Annotated[
        str | None, typer.Option("--published", help="Use a published set of parameters: deeplab_largefov, ...")
    ] = None,
    weight: Annotated[float | None, typer.Option("--weight", min=0, help="Weight of the appearance kernel: 4.")] = None,
    sxy: Annotated[float | None, typer.Option("--sxy", help="Its range in pixels: 67.")] = None,
    srgb: Annotated[float | None, typer.Option("--srgb", help="Its range in colour, of 255: 3.")] = None,
    smoothness: Annotated[
        float | None, typer.Option("--smoothness", min=0, help="Weight of the smoothness kernel: 3.")
    ] = None,
    smoothness_sxy: Annotated[float | None, typer.Option("--smoothness-sxy", help="Its range in pixels: 3.")] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", min=0, help="Mean-field iterations: 10.")] = None,
    overlay: Overlay = False,
    overwrite: OverwriteResults = False,
) -> None:
    """Refine any program's class predictions: a mask for each image; exit code 1 if some failed."""
    from atrous.crf.dense_crf import DenseCRF
    from atrous.crf.settings import Settings, changed
    from atrous.inference.crf_files import refine_files
    from atrous.inference.results import OutputOptions

    given = {
        "weight": weight,
        "sxy": sxy,
        "srgb": srgb,
        "smoothness": smoothness,
        "smoothness_sxy": smoothness_sxy,
        "iterations": iterations,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if published and changes:
        raise InputError(f"--published {published} fixes all parameters; leave out {', '.join(changes)}")
    crf = DenseCRF.published(published) if published else changed(Settings(), changes).build()
    with progress_bar("refining") as progress:
        report = refine_files(
            inputs,
            predictions,
            out,
            crf,
            label_set=read_classes(classes),
            kind=kind,
            confidence=confidence,
            orientation=orientation,
            outputs=OutputOptions(overlays=overlay, overwrite=overwrite),
            progress=progress,
        )
    print_report(report, out)
