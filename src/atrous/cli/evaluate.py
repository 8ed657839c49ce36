"""`atrous evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import (
    check_writable,
    describe_evaluation,
    load_model,
    make_inference,
    parse_integers,
    set_output_stride,
    set_resize,
    write_json,
)
from atrous.cli.options import (
    Crf,
    Data,
    DataClasses,
    DataOverlap,
    Device,
    Flip,
    JsonFile,
    Merge,
    Model,
    OutputStride,
    Precision,
    Resize,
    Runtime,
    Scales,
    Trimap,
)
from atrous.cli.progress import progress_bar

CURVE = (1, 2, 4, 8, 16, 32)
"""The bands of a report's curve along boundaries, unless --trimap names others."""


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="Split to evaluate on.")] = "val",
    classes: DataClasses = None,
    overlap: DataOverlap = None,
    model_classes: Annotated[
        str | None,
        typer.Option("--model-classes", help="Class table from the model's classes to the data's, or coco-to-voc."),
    ] = None,
    json: JsonFile = None,
    runtime: Runtime = None,
    device: Device = None,
    output_stride: OutputStride = None,
    resize: Resize = None,
    precision: Precision = "float32",
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = None,
    crf: Crf = False,
    trimap: Trimap = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write a report into this folder: one HTML file, and its figures as JSON."),
    ] = None,
) -> None:
    """Evaluate a model: one confusion matrix over the split, every image at its own size.

    --json and --report also find boundary IoU, objects, calibration and intervals over images.
    """
    from atrous.data.opening import open_dataset
    from atrous.data.sources.spec import with_options
    from atrous.evaluation.evaluate import evaluate
    from atrous.evaluation.report import table
    from atrous.evaluation.stored import FILE, to_facts
    from atrous.runtime.exported import ExportedModel

    widths = parse_integers("--trimap", trimap) or (list(CURVE) if report else [])
    check_writable(json, report and report / FILE)
    dataset = open_dataset(with_options(data, overlap=overlap, classes=classes), split)
    network = load_model(model, device, runtime, output_stride=output_stride, probabilities=crf)
    set_resize(network, resize)
    inference = make_inference(network, scales, flip, merge, crf)
    set_output_stride(network, output_stride)
    with progress_bar("evaluating") as progress:
        evaluation = evaluate(
            network,
            dataset,
            precision=precision,
            progress=progress,
            trimap=widths,
            inference=inference,
            details=bool(report or (json and not isinstance(network, ExportedModel))),
            model_classes=model_classes,
        )
    typer.echo(f"{describe_evaluation(model, evaluation)}\n\n{table(evaluation)}")
    if json or report:
        settings = {"output stride": output_stride, "scales": scales, "merge": merge}
        given = [f"{name} {value}" for name, value in settings.items() if value is not None]
        given += [f"classes by {model_classes}"] if model_classes else []
        switches = [name for name, wanted in (("flip", flip), ("CRF", crf)) if wanted]
        facts = to_facts(evaluation, network.card, ", ".join([model, *given, *switches]))
        write_json(json, facts)
    if report:
        from atrous.evaluation.classes import label_table
        from atrous.evaluation.page.writing import write_report
        from atrous.inference.test_time import Inference

        assert not isinstance(network, ExportedModel)  # it has no details
        inference = inference or Inference()
        write_json(report / FILE, facts)
        mapped = label_table(network.label_set, dataset.label_set, model_classes)
        typer.echo(f"\nreport: {write_report(report, facts, network, dataset, inference, precision, mapped)}")
