"""`atrous convert pytorch`."""

from __future__ import annotations

from typing import Annotated

import typer

from atrous.cli.common import print_note
from atrous.cli.convert.common import (
    BuiltInScales,
    Classes,
    ClassesOf,
    FCNInputs,
    ModelFolder,
    Overwrite,
    Rates,
    Weights,
    check_model_folder,
    conversion_options,
    save_converted,
)


def pytorch(
    file: Weights,
    architecture: Annotated[
        str, typer.Option("--as", help="Its architecture: deeplabv3plus, deeplab_aspp, fcn8s, ...")
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout", help="Whose tensor names it has: torchvision, smp, kazuto1011, ... (docs/weights.md)."
        ),
    ],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    scales: BuiltInScales = None,
    inputs: FCNInputs = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert the state dict (.pth or .safetensors) of a PyTorch implementation."""
    from atrous.convert.pytorch import convert_pytorch

    check_model_folder(out, overwrite)
    options = conversion_options(classes, data, rates, scales)
    save_converted(convert_pytorch(file, architecture, layout, inputs=inputs, **options), out)
    if layout in ("smp", "jfzhang95"):
        print_note("read as a network of output stride 16; one that ran at 8 there has other dilations")
