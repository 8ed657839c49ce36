"""`atrous convert to-pytorch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import print_note
from atrous.cli.convert.common import Overwrite, check_file
from atrous.cli.options import Model


def to_pytorch(
    model: Model,
    layout: Annotated[
        str,
        typer.Option("--layout", help="Whose tensor names to use: torchvision, smp, transformers, vainf, jfzhang95."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .pth or .safetensors to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a DeepLabv3, DeepLabv3+ or fcn as a state dict that another program loads."""
    from atrous.convert.to_pytorch import check_ending, stride_there, write_pytorch
    from atrous.models.loading import load

    check_ending(out)
    check_file(out, overwrite)
    network = load(model)
    write_pytorch(network, layout, out)
    mean, std = (
        ", ".join(f"{x:g}" for x in values) for values in (network.preprocessing.mean, network.preprocessing.std)
    )
    typer.echo(f"{network.name} on {network.backbone.name} in {layout}'s names: {out}; load it with load_state_dict")
    typer.echo(f"it expects RGB / 255, minus ({mean}), over ({std})")
    if (stride := stride_there(network, layout)) != network.output_stride:
        print_note(f"it runs at output stride {stride} there, at {network.output_stride} here")
    if layout == "torchvision" and network.resize == "exact":
        print_note("full-size logits are stretched there, and sampled where the features sit here (--resize exact)")
    if layout == "smp":
        print_note("build the smp model with encoder_output_stride=16")
    if layout == "transformers":
        print_note("the transformers model has one more, unused layer (mobilenet_v2.conv_1x1): load with strict=False")
