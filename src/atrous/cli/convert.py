"""Weights of other programs: convert caffe, pytorch, tensorflow, tflite-arrays, classifier."""

from __future__ import annotations

from errno import ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atrous.cli.common import Model, check_writable, numbers, read_classes, read_scales
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.labels import LabelSet
    from atrous.models.base import SegmentationModel

convert_app = typer.Typer(no_args_is_help=True)


@convert_app.callback()
def _convert() -> None:
    """Make model folders of weights that other programs trained; every tensor of a file is used, or named."""


Weights = Annotated[Path, typer.Argument(metavar="FILE", help="The file of weights.")]
ModelFolder = Annotated[Path, typer.Option("--out", help="The model folder to write.")]
Classes = Annotated[
    Path | None, typer.Option("--classes", help="A text file of class names, one a line; else by their number.")
]
ClassesOf = Annotated[str | None, typer.Option("--data", help="A dataset whose class names these are: voc:PATH, ...")]
Rates = Annotated[
    str | None, typer.Option("--rates", help="A DeepLab's rates where they are not the published: 2,4,8,12.")
]
BuiltInScales = Annotated[
    str | None, typer.Option("--scales", help="A DeepLab v2's own, where not as it was trained: 1 is thrice as fast.")
]
Inputs = Annotated[
    str | None, typer.Option("--inputs", help="What an FCN looks at, where the file can't tell: nyud-hha.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@convert_app.command("caffe")
def convert_caffe(
    file: Weights,
    architecture: Annotated[
        str, typer.Option("--as", help="What it holds: fcn32s, fcn16s, fcn8s, deeplab_largefov, deeplab_aspp.")
    ],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    scales: BuiltInScales = None,
    inputs: Inputs = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a released Caffe net (.caffemodel): an FCN or a DeepLab."""
    from atrous.convert.caffe import convert_caffe as convert

    _check_model_folder(out, overwrite)
    options = _options(classes, data, rates, scales)
    _keep_converted(convert(file, architecture, inputs=inputs, **options), out)


@convert_app.command("pytorch")
def convert_pytorch(
    file: Weights,
    architecture: Annotated[str, typer.Option("--as", help="What it holds: deeplabv3plus, deeplab_aspp, fcn8s, ...")],
    layout: Annotated[
        str, typer.Option("--layout", help="Whose names it has: torchvision, smp, kazuto1011, ... (docs/weights.md).")
    ],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    scales: BuiltInScales = None,
    inputs: Inputs = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert the state dict (.pth or .safetensors) of a PyTorch reproduction."""
    from atrous.convert.pytorch import convert_pytorch as convert

    _check_model_folder(out, overwrite)
    options = _options(classes, data, rates, scales)
    _keep_converted(convert(file, architecture, layout, inputs=inputs, **options), out)
    if layout in ("smp", "jfzhang95"):
        typer.echo("note: read as a network of output stride 16; one that ran at 8 there has other dilations")


@convert_app.command("classifier")
def convert_classifier(
    file: Weights,
    architecture: Annotated[str, typer.Option("--as", help="What it is: vgg16, vgg19, ..., caffenet.")],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors to write, for model.pretrained.")],
    overwrite: Overwrite = False,
) -> None:
    """Convert an ImageNet classifier of Caffe (.caffemodel) to weights that a training starts from."""
    from atrous.convert.classifier import convert_classifier as convert

    _check_file(out, overwrite)
    convert(file, architecture, out)
    typer.echo(f"start from it: atrous train RECIPE --set model.backbone={architecture} --set model.pretrained={out}")


@convert_app.command("tensorflow")
def convert_tensorflow(
    file: Annotated[Path, typer.Argument(metavar="PREFIX", help="The checkpoint, such as model.ckpt-30000.")],
    architecture: Annotated[str, typer.Option("--as", help="What it holds: deeplabv3, deeplabv3plus.")],
    out: ModelFolder,
    classes: Classes = None,
    data: ClassesOf = None,
    rates: Rates = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a checkpoint of TensorFlow's DeepLab: Xception, ResNet (beta), MobileNetV2."""
    from atrous.convert.tensorflow import convert_tensorflow as convert

    _check_model_folder(out, overwrite)
    model = convert(file, architecture, label_set=_labels(classes, data), rates=numbers("--rates", rates) or None)
    _keep_converted(model, out)


@convert_app.command("tflite-arrays")
def convert_tflite_arrays(
    file: Weights, out: ModelFolder, classes: Classes = None, data: ClassesOf = None, overwrite: Overwrite = False
) -> None:
    """Convert the arrays of a TFLite network (.npz, and .json of its layers): DeepLabv3 on MobileNetV2."""
    from atrous.convert.tensorflow import convert_tflite_arrays as convert

    _check_model_folder(out, overwrite)
    _keep_converted(convert(file, label_set=_labels(classes, data)), out)


@convert_app.command("to-pytorch")
def convert_to_pytorch(
    model: Model,
    layout: Annotated[
        str, typer.Option("--layout", help="Whose names: torchvision, smp, transformers, vainf, jfzhang95.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The .pth or .safetensors to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a DeepLabv3, v3+ or fcn of ours as a state dict that another program loads."""
    from atrous.convert.export import check_ending, stride_there, write_pytorch
    from atrous.models.loading import load

    check_ending(out)
    _check_file(out, overwrite)
    network = load(model)
    write_pytorch(network, layout, out)
    shown = network.preprocessing
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (shown.mean, shown.std))
    typer.echo(f"{network.name} on {network.backbone.name} in {layout}'s names: {out}; load it with load_state_dict")
    typer.echo(f"it expects RGB / 255, minus ({mean}), over ({std})")
    if (stride := stride_there(network, layout)) != network.output_stride:
        typer.echo(f"note: it runs at output stride {stride} there, ours at {network.output_stride}")
    if layout == "smp":
        typer.echo("note: build theirs with encoder_output_stride=16")
    if layout == "transformers":
        typer.echo("note: theirs has one more layer, of no account (mobilenet_v2.conv_1x1): load with strict=False")


def _labels(classes: Path | None, data: str | None) -> LabelSet | None:
    from atrous.data.sources.registry import find_source

    if classes and data:
        raise InputError("--classes and --data both name the classes; give one of them")
    return find_source(data).form().label_set if data else read_classes(classes)


def _options(classes: Path | None, data: str | None, rates: str | None, scales: str | None) -> dict[str, Any]:
    return {
        "label_set": _labels(classes, data),
        "rates": numbers("--rates", rates) or None,
        "scales": read_scales(scales) or None,
    }


def _check_file(out: Path, overwrite: bool) -> None:
    """Fail before the work, and before what is there is replaced."""
    check_writable(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there: name a new file, or replace it with --overwrite")


def _check_model_folder(out: Path, overwrite: bool) -> None:
    """Fail before the work, and before what is there is replaced."""
    from atrous.models.checkpoint import is_model_folder

    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(ENOTDIR, "a file, where a folder is to be written in", str(above))
    if is_model_folder(out):
        if not overwrite:
            raise InputError(f"{out} holds a model: name a new folder, or replace it with --overwrite")
    elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there and is no model folder: name a new one")


def _keep_converted(model: SegmentationModel, out: Path) -> None:
    from atrous.convert.source import listed

    model.save(out)
    size = sum(parameter.numel() for parameter in model.parameters())
    names = ", ".join(model.label_set.names)
    typer.echo(f"{model.name} on {model.backbone.name}, {size:,} parameters, {model.num_classes} classes: {names}")
    if options := {key: value for key, value in model.config["options"].items() if value or value == []}:
        typer.echo(f"options: {', '.join(f'{key} {value}' for key, value in options.items())}")
    if left_out := model.card.get("left_out"):
        typer.echo(f"note: left out, for it has no part in the scores ({len(left_out)}): {listed(left_out)}")
    typer.echo(f"try it: atrous predict YOUR_PHOTO.jpg --model {out} --out masks")
