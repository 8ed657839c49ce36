"""`atrous evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from atrous.cli.common import (
    Crf,
    Data,
    Device,
    Flip,
    JsonFile,
    Merge,
    Model,
    OutputStride,
    Precision,
    Scales,
    Trimap,
    check_writable,
    describe_evaluation,
    load_model,
    make_inference,
    parse_integers,
    progress_bar,
    write_json,
)


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="Split to evaluate on.")] = "val",
    json: JsonFile = None,
    device: Device = None,
    output_stride: OutputStride = None,
    precision: Precision = "float32",
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    crf: Crf = False,
    trimap: Trimap = None,
) -> None:
    """Evaluate a model: one confusion matrix over the split, every image at its own size."""
    from atrous.data.opening import open_dataset
    from atrous.evaluation.evaluate import evaluate
    from atrous.evaluation.report import table

    widths = parse_integers("--trimap", trimap)
    check_writable(json)
    dataset = open_dataset(data, split)
    network = load_model(model, device)
    inference = make_inference(network, scales, flip, merge, crf)
    if output_stride is not None:
        network.output_stride = output_stride
    with progress_bar("evaluating") as progress:
        evaluation = evaluate(
            network, dataset, precision=precision, progress=progress, trimap=widths, inference=inference
        )
    typer.echo(f"{describe_evaluation(model, evaluation)}\n\n{table(evaluation)}")
    write_json(json, evaluation.to_dict())
