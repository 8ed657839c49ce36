"""`atrous convert caffe`."""

from __future__ import annotations

from typing import Annotated

import typer

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


def caffe(
    file: Weights,
    architecture: Annotated[
        str, typer.Option("--as", help="Its architecture: fcn32s, fcn16s, fcn8s, deeplab_largefov, deeplab_aspp.")
    ],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    scales: BuiltInScales = None,
    inputs: FCNInputs = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a released Caffe network (.caffemodel): an FCN or a DeepLab."""
    from atrous.convert.caffe import convert_caffe

    check_model_folder(out, overwrite)
    options = conversion_options(classes, data, rates, scales)
    save_converted(convert_caffe(file, architecture, inputs=inputs, **options), out)
