"""`atrous convert tensorflow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.common import parse_integers
from atrous.cli.convert.common import (
    Classes,
    ClassesOf,
    ModelFolder,
    Overwrite,
    Rates,
    check_model_folder,
    read_label_set,
    save_converted,
)


def tensorflow(
    file: Annotated[Path, typer.Argument(metavar="PREFIX", help="The checkpoint, such as model.ckpt-30000.")],
    architecture: Annotated[str, typer.Option("--as", help="Its architecture: deeplabv3, deeplabv3plus.")],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a checkpoint of TensorFlow's DeepLab: Xception, ResNet (beta), MobileNetV2."""
    from atrous.convert.tensorflow import convert_tensorflow

    check_model_folder(out, overwrite)
    label_set = read_label_set(classes, data)
    rate_list = parse_integers("--rates", rates) or None
    save_converted(convert_tensorflow(file, architecture, label_set=label_set, rates=rate_list), out)
