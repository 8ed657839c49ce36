"""Converting TensorFlow checkpoints of the authors' DeepLabv3 and v3+ (github.com/tensorflow/models, research/deeplab).

Layers have the names of the variables' scopes: ``MobilenetV2/expanded_conv_1/expand``, ``aspp0``, ``logits/semantic``,
with their batch norm in ``BatchNorm``. All networks read images from −1 to 1, with TensorFlow's "SAME" padding, which
equals PyTorch's for images of 32k + 1 pixels (257, 513).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from atrous.convert.architectures.deeplabv3 import Naming, deeplabv3_from, mobilenetv2, mobilenetv2_place
from atrous.convert.formats.tensorbundle import read_tensor_bundle
from atrous.convert.tensors import ConversionError, FileTensors, listed
from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel

MOBILENET_EPS = XCEPTION_EPS = 1e-3
HEAD_EPS = 1e-5
"""Epsilon of batch norm: in those backbones, and in the heads and ResNets."""
MULTI_GRID = (1, 2, 4)
"""Multi-grid of the released ResNets."""
_BACKBONES = ("xception_41", "xception_65", "xception_71", "resnet_v1_50", "resnet_v1_101", "MobilenetV2")


def convert_tensorflow(
    prefix: str | Path, architecture: str, *, label_set: LabelSet | None = None, rates: Sequence[int] | None = None
) -> SegmentationModel:
    """Convert a checkpoint of TensorFlow's DeepLab on Xception-41, -65 or -71, on a ResNet that begins with three 3×3
    convolutions ("beta"), or on MobileNetV2.

    Moving averages of variables are preferred; an optimizer's variables are left out.

    Args:
        prefix: the checkpoint's name in TensorFlow, such as ``model.ckpt-30000``; or one of its files.
        architecture: ``deeplabv3`` or ``deeplabv3plus``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        rates: rates of ASPP's branches at output stride 16; by default 6, 12, 18.

    Returns:
        The model in eval mode, at output stride 16.

    Raises:
        CheckpointFileError: the files can't be read.
        MissingPartError: a file is missing.
        ConversionError: the checkpoint contains another network.
        InputError: the architecture is unknown, the number of rates is not that of branches, or the number of labels
            not that of classes.
    """
    if architecture not in ("deeplabv3", "deeplabv3plus"):
        raise InputError(f"TensorFlow checkpoints are converted to deeplabv3 or deeplabv3plus, not to '{architecture}'")
    prefix = Path(prefix)
    variables = read_tensor_bundle(prefix)
    source = FileTensors(
        prefix, dict(_as_in_pytorch(variables)), left_out=[name for name in variables if _of_training(name)]
    )
    model = deeplabv3_from(source, architecture, _naming(source, architecture), label_set, rates)
    model.card = source.card()
    return model


_AVERAGE = "/ExponentialMovingAverage"
_SLOTS = ("/Momentum", "/Adam", "/Adam_1", "/RMSProp", "/RMSProp_1")
_COUNTERS = ("global_step", "beta1_power", "beta2_power")
_KINDS = {
    **{"weights": "weight", "depthwise_weights": "weight", "biases": "bias", "gamma": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}


def _as_in_pytorch(variables: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The variables of a network with PyTorch's kinds and shapes, without those of an optimizer."""
    for name, value in variables.items():
        if _of_training(name) or name.endswith(_AVERAGE):
            continue
        scope, _, kind = name.rpartition("/")
        found = variables.get(name + _AVERAGE, value)
        if found.ndim == 4:
            found = found.transpose((2, 3, 0, 1) if kind == "depthwise_weights" else (3, 2, 0, 1))
        yield f"{scope}.{_KINDS.get(kind, kind)}", found


def _of_training(name: str) -> bool:
    """Whether only an optimizer needs a variable."""
    return name in _COUNTERS or name.endswith(_SLOTS)


def _naming(source: FileTensors, architecture: str) -> Naming:
    scopes = dict.fromkeys(name.partition("/")[0] for name in source.names())
    scope = next((s for s in scopes if s in _BACKBONES), None)
    if scope is None:
        raise ConversionError(
            f"{source.file} has no known backbone ({', '.join(_BACKBONES)}), but {listed(list(scopes))}"
        )
    if scope == "MobilenetV2":
        if architecture == "deeplabv3plus":
            raise ConversionError(f"{source.file} has a decoder on MobileNetV2, which reads other features than ours")
        naming = mobilenetv2_naming(source)
        return naming._replace(options=_options(source))
    head = _head(source, 2 if architecture == "deeplabv3plus" else 0)
    options = _options(source)
    if scope.startswith("xception"):
        depth = int(scope.rpartition("_")[2])
        return Naming(f"xception{depth}", partial(_xception_layer, scope), head, options, eps=XCEPTION_EPS)
    if f"{scope}/conv1_1.weight" not in source:
        raise ConversionError(
            f'{source.file} has a ResNet that begins with a 7×7 convolution; only the "beta" ones of v3 are supported'
        )
    backbone = f"resnet{scope.rpartition('_')[2]}_beta"
    return Naming(backbone, partial(_resnet_layer, scope), head, options | {"multi_grid": MULTI_GRID})


def _options(source: FileTensors) -> dict[str, Any]:
    """The options of the head, from the variables of a checkpoint."""
    separable = "aspp1_depthwise.weight" in source
    options: dict[str, Any] = {"separable": True} if separable else {}
    if not separable and "aspp1.weight" not in source:
        options["rates"] = ()
    return options if "image_pooling.weight" in source else options | {"image_pooling": False}


def _head(source: FileTensors, decoder_convs: int) -> dict[str, str]:
    head = {"classifier": "logits/semantic"}
    for ours, theirs in _UNITS.items():
        head |= _unit(ours, theirs)
    if decoder_convs:
        head |= _unit("decoder.steps.0.project", "decoder/feature_projection0")
    separable = "aspp1_depthwise.weight" in source
    convs = {f"aspp.atrous.{i}": f"aspp{i + 1}" for i in range(3)}
    repeated = "decoder/decoder_conv0/decoder_conv0_{}".format  # as slim.repeat names them
    for i in range(decoder_convs):
        convs[f"decoder.steps.0.refine.{i}"] = f"decoder/decoder_conv{i}" if separable else repeated(i + 1)
    for ours, theirs in convs.items():
        if separable:
            head |= _unit(ours, f"{theirs}_depthwise") | _unit(ours, f"{theirs}_pointwise", 3)
        else:
            head |= _unit(ours, theirs)
    return head


_STACK = {"conv_dw": "_depthwise", "bn_dw": "_depthwise/BatchNorm"}
_STACK |= {"conv_pw": "_pointwise", "bn_pw": "_pointwise/BatchNorm"}
_ENTRY, _MIDDLE = {41: 3, 65: 3, 71: 5}, {41: 8, 65: 16, 71: 16}


def _xception_layer(scope: str, layer: str) -> str:
    if layer.startswith("stem_"):
        stem, part = layer.split(".")
        return f"{scope}/entry_flow/conv1_{int(stem[-1]) + 1}{'/BatchNorm' if part == 'bn' else ''}"
    block, group, *parts = layer.split(".")
    depth, number = int(scope.rpartition("_")[2]), int(block.removeprefix("blocks_"))
    entry, middle = _ENTRY[depth], _MIDDLE[depth]
    if number < entry:
        place = f"entry_flow/block{number + 1}/unit_1"
    elif number < entry + middle:
        place = f"middle_flow/block1/unit_{number - entry + 1}"
    else:
        place = f"exit_flow/block{number - entry - middle + 1}/unit_1"
    place = f"{scope}/{place}/xception_module"
    if group == "shortcut":
        return f"{place}/shortcut{'/BatchNorm' if parts == ['bn'] else ''}"
    conv, part = parts
    return f"{place}/separable_{conv}{_STACK[part]}"


_RESNET_STEM = {
    **{"conv1.0": "conv1_1", "conv1.1": "conv1_1/BatchNorm", "conv1.3": "conv1_2", "conv1.4": "conv1_2/BatchNorm"},
    **{"conv1.6": "conv1_3", "bn1": "conv1_3/BatchNorm"},
}
_RESNET_PARTS = {"downsample.0": "shortcut", "downsample.1": "shortcut/BatchNorm"} | {
    f"{kind}{i}": f"conv{i}{end}" for i in (1, 2, 3) for kind, end in (("conv", ""), ("bn", "/BatchNorm"))
}


def _resnet_layer(scope: str, layer: str) -> str:
    if layer in _RESNET_STEM:
        return f"{scope}/{_RESNET_STEM[layer]}"
    block, unit, part = layer.removeprefix("layer").split(".", 2)
    return f"{scope}/block{block}/unit_{int(unit) + 1}/bottleneck_v1/{_RESNET_PARTS[part]}"


def mobilenetv2_naming(source: FileTensors) -> Naming:
    """The names of MobileNetV2 as released for segmentation: image pooling beside a 1×1 convolution, no decoder. The
    narrow ones have layers of 12 channels, where rounding to multiples of eight gives 16.
    """
    backbone = mobilenetv2(source, "MobilenetV2/expanded_conv_16/project.weight")
    return Naming(backbone, _mobilenetv2_layer, _head(source, 0), {"rates": ()}, eps=MOBILENET_EPS, narrow=True)


def _mobilenetv2_layer(layer: str) -> str:
    if not layer.startswith("blocks"):
        return "MobilenetV2/Conv" if layer == "conv_stem" else "MobilenetV2/Conv/BatchNorm"
    number, part, norm = mobilenetv2_place(layer)
    block = f"expanded_conv_{number}" if number else "expanded_conv"
    return f"MobilenetV2/{block}/{('expand', 'depthwise', 'project')[part]}{'/BatchNorm' if norm else ''}"


_UNITS = {"aspp.pooled": "image_pooling", "aspp.pointwise": "aspp0", "aspp.project": "concat_projection"}


def _unit(ours: str, theirs: str, first: int = 0) -> dict[str, str]:
    return {f"{ours}.{first}": theirs, f"{ours}.{first + 1}": f"{theirs}/BatchNorm"}
