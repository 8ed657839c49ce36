"""`atrous export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from atrous.cli.common import load_network, print_note
from atrous.cli.options import OptionalModel, OutputStride
from atrous.errors import InputError


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
    int8: Annotated[bool, typer.Option("--int8", help="Compute in int8, with ranges seen on --calibrate.")] = False,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="For --int8, a dataset: folder:PATH, voc:PATH, ...; half of it is evaluated."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the dataset.")] = "val",
) -> None:
    """Write a model as one file for ONNX Runtime, OpenVINO or torch, and its proof beside it.

    Images of any size go in as bytes, labels come out; exit code 1 if int8 loses more than 0.5 points of mean IoU.
    """
    from atrous.cli.common import check_writable
    from atrous.data.opening import open_dataset
    from atrous.export.model import check_format, export_model
    from atrous.export.proof import proof_file

    if int8 != (calibrate is not None):
        raise InputError("--int8 and --calibrate DATA go together: int8 takes its ranges from images")
    check_format(out, format)
    check_writable(out)
    network = load_network(model, "cpu")
    if "crf" in network.card:
        print_note("the model's CRF stays outside the file, which gives the network's own labels")
    data = open_dataset(calibrate, split) if calibrate else None
    proof = export_model(
        network, out, format=format, output_stride=output_stride, probabilities=probabilities, calibrate=data
    )
    typer.echo("\n".join(proof.lines()))
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB; proof: {proof_file(out)}")
    if not proof.good:
        typer.secho("atrous: this int8 file is not good: it loses more than 0.5 points of mean IoU", fg="red", err=True)
        raise typer.Exit(1)
