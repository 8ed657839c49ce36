"""`atrous export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from atrous.cli.common import OptionalModel, OutputStride, load_model, print_note


def export(
    out: Annotated[Path, typer.Option("--out", help="File to write: .onnx, .xml (OpenVINO) or .pt2 (torch).")],
    model: OptionalModel = None,
    format: Annotated[
        Literal["onnx", "openvino", "torch"] | None,
        typer.Option("--format", help="onnx, openvino or torch; that of the file's ending by default."),
    ] = None,
    output_stride: OutputStride = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add an output with the class probabilities of each pixel.")
    ] = False,
) -> None:
    """Write a model as one file for ONNX Runtime, OpenVINO or torch: any image size, preprocessing inside."""
    from atrous.cli.common import check_writable
    from atrous.export.model import check_format, export_model

    check_format(out, format)
    check_writable(out)
    network = load_model(model, "cpu")
    if "crf" in network.card:
        print_note("the model's CRF stays outside the file, which gives the network's own labels")
    file = export_model(network, out, format=format, output_stride=output_stride, probabilities=probabilities)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
