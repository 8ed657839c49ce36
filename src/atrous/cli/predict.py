"""`atrous predict`."""

from __future__ import annotations

from typing import Annotated

import typer

from atrous.cli.common import (
    Crf,
    Device,
    Flip,
    Inputs,
    Merge,
    NoOverlay,
    OptionalModel,
    OutputStride,
    OverwriteResults,
    Precision,
    ResultFolder,
    Scales,
    load_model,
    make_inference,
    print_report,
    progress_bar,
)


def predict(
    inputs: Inputs,
    out: ResultFolder,
    model: OptionalModel = None,
    device: Device = None,
    output_stride: OutputStride = None,
    precision: Precision = "auto",
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    crf: Crf = False,
    json: Annotated[bool, typer.Option("--json", help="Also write the area of each class.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the class probabilities (NumPy .npz).")
    ] = False,
    attention_maps: Annotated[
        bool, typer.Option("--attention-maps", help="Also draw the weight of each scale (attention_to_scale).")
    ] = False,
    no_overlay: NoOverlay = False,
    overwrite: OverwriteResults = False,
) -> None:
    """Segment images: a mask (palette PNG) and an overlay for each; exit code 1 if some images failed."""
    from atrous.inference.batch import predict_files
    from atrous.inference.results import OutputOptions

    network = load_model(model, device)
    inference = make_inference(network, scales, flip, merge, crf)
    with progress_bar("segmenting") as progress:
        report = predict_files(
            network,
            inputs,
            out,
            outputs=OutputOptions(not no_overlay, json, probabilities, attention_maps, overwrite),
            output_stride=output_stride,
            precision=precision,
            inference=inference,
            progress=progress,
        )
    print_report(report, out)
