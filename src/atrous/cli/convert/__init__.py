"""`atrous convert`: weights of other programs to Atrous models, and back."""

from __future__ import annotations

import typer

from atrous.cli.common import add_commands
from atrous.cli.convert.caffe import caffe
from atrous.cli.convert.classifier import classifier
from atrous.cli.convert.pytorch import pytorch
from atrous.cli.convert.tensorflow import tensorflow
from atrous.cli.convert.tflite_arrays import tflite_arrays
from atrous.cli.convert.to_pytorch import to_pytorch

convert_app = typer.Typer(no_args_is_help=True)
add_commands(convert_app, caffe, pytorch, classifier, tensorflow, tflite_arrays, to_pytorch)


@convert_app.callback()
def _convert() -> None:
    """Convert weights of other programs to model folders; every tensor of a file is used, or reported."""
