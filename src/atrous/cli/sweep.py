"""`atrous sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import (
    check_writable,
    describe_evaluation,
    load_network,
    make_inference,
    parse_integers,
    write_json,
)
from atrous.cli.options import Crf, Data, Device, Flip, JsonFile, Model, Precision, Scales, Trimap
from atrous.cli.progress import progress_bar
from atrous.errors import InputError


def sweep(
    model: Model,
    data: Data,
    output_stride: Annotated[
        str | None, typer.Option("--output-stride", help="Output strides to compare: 8,16,32")
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            "--merge",
            help="Ways of merging scales to compare: attention,average,max for a multi-scale network's own; "
            "probabilities,average,max for --scales and --flip.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split to evaluate on.")] = "val",
    plot: Annotated[Path | None, typer.Option("--plot", help="Plot accuracy over time and memory (PNG).")] = None,
    json: JsonFile = None,
    device: Device = None,
    precision: Precision = "float32",
    scales: Scales = None,
    flip: Flip = False,
    crf: Crf = False,
    trimap: Trimap = None,
) -> None:
    """Evaluate a model at several output strides, or with several ways of merging scales: accuracy, time and memory."""
    from atrous.data.opening import open_dataset
    from atrous.evaluation import sweep as sweeping
    from atrous.files import write_atomically
    from atrous.inference.test_time import Inference, with_merge

    widths, strides = parse_integers("--trimap", trimap), parse_integers("--output-stride", output_stride)
    merges = [] if merge is None else [part.strip() for part in merge.split(",")]
    vary_merge = _merge_varies(strides, merges)
    if plot and plot.suffix.lower() != ".png":
        raise InputError(f"{plot}: a plot is a PNG; name it {plot.stem}.png")
    check_writable(json, plot)
    dataset = open_dataset(data, split)
    network = load_network(model, device)
    inference = make_inference(network, scales, flip, crf=crf)
    if vary_merge and strides:
        network.output_stride = strides[0]
    elif merges and not vary_merge:
        inference = with_merge(network, inference or Inference(), merges[0])
    with progress_bar("evaluating") as progress:
        points = sweeping.sweep(
            network,
            dataset,
            "merge" if vary_merge else "output_stride",
            merges if vary_merge else strides,
            precision=precision,
            progress=progress,
            trimap=widths,
            inference=inference,
        )
    typer.echo(f"{describe_evaluation(model, points[0].evaluation)}\n\n{sweeping.table(points)}")
    write_json(json, {"points": [point.to_dict() for point in points]})
    if plot:
        write_atomically(plot, sweeping.plot(points))


def _merge_varies(strides: Sequence[int], merges: Sequence[str]) -> bool:
    """Whether the merge is varied; otherwise the output stride is."""
    several = len(set(strides)) > 1, len(set(merges)) > 1
    if several[0] == several[1]:
        raise InputError(
            "a sweep varies one of --output-stride and --merge: give several values of one of them, such as "
            "--output-stride 8,16,32"
        )
    return several[1]
