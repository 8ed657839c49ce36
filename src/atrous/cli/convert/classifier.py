"""`atrous convert classifier`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atrous.cli.convert.common import Overwrite, Weights, check_file


def classifier(
    file: Weights,
    architecture: Annotated[str, typer.Option("--as", help="Its architecture: vgg16, vgg19, ..., caffenet.")],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors to write, for model.pretrained.")],
    overwrite: Overwrite = False,
) -> None:
    """Convert a Caffe ImageNet classifier (.caffemodel) to weights to start a training from."""
    from atrous.convert.caffe_classifier import convert_classifier

    check_file(out, overwrite)
    convert_classifier(file, architecture, out)
    typer.echo(f"start from it: atrous train RECIPE --set model.backbone={architecture} --set model.pretrained={out}")
