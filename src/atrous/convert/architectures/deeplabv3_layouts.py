"""Layouts of DeepLabv3 and v3+ (and torchvision's dilated FCN) in PyTorch programs.

- ``torchvision``: ``deeplabv3_*`` and ``fcn_*``;
- ``smp``: segmentation-models-pytorch on its ResNets. Unlike the paper's, its separable convolutions have nothing
  between their two parts: here they are ordinary convolutions, equivalent but more expensive;
- ``transformers``: MobileNetV2ForSemanticSegmentation;
- ``vainf``: github.com/VainF/DeepLabV3Plus-Pytorch on ResNets;
- ``jfzhang95``: github.com/jfzhang95/pytorch-deeplab-xception on ResNet-101.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from atrous.convert.architectures.deeplabv3 import (
    MOBILENETV2S,
    UNIT,
    Layers,
    Naming,
    mobilenetv2,
    mobilenetv2_place,
    unit,
)
from atrous.convert.tensors import ConversionError, FileTensors
from atrous.models.base import Preprocessing

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ResNets = Mapping[str, tuple[int, tuple[int, ...]]]
"""By name: the number of convolutions of a unit, and of units of the four blocks."""
_BOTTLENECKS: _ResNets = {
    "resnet50": (3, (3, 4, 6, 3)),
    "resnet101": (3, (3, 4, 23, 3)),
    "resnet152": (3, (3, 8, 36, 3)),
}
"""The ResNets that torchvision, and VainF after it, can dilate."""
_RESNETS: _ResNets = {"resnet18": (2, (2, 2, 2, 2)), "resnet34": (2, (3, 4, 6, 3)), **_BOTTLENECKS}
_LAST_BLOCK = {"resnet18": 4, "resnet34": 6}
"""The number of 3×3 convolutions of the last block, if not three."""


Has = Callable[[str], bool]
"""Whether a file has, or is to have, a tensor of a name."""


class Layout(NamedTuple):
    """How another program names its networks.

    Args:
        backbones: our names of its backbones.
        find_backbone: finds our name of the backbone of a file, given its architecture.
        naming: the names of a network, given its architecture, our name of its backbone, and the tensors it has.
    """

    backbones: tuple[str, ...]
    find_backbone: Callable[[FileTensors, str], str]
    naming: Callable[[str, str, Has], Naming]


def _torchvision_backbone(source: FileTensors, architecture: str) -> str:
    if architecture == "fcn":
        return _resnet(source, "backbone.", _BOTTLENECKS)
    if "backbone.0.0.weight" in source:
        return _MOBILENETV3
    return _resnet(source, "backbone.", _BOTTLENECKS, " (or MobileNetV3-Large: backbone.0.0.weight)")


def _torchvision(architecture: str, backbone: str, has: Has) -> Naming:
    mobile = backbone == _MOBILENETV3
    aux = has("aux_classifier.0.weight") and not mobile
    head = {f"aux_classifier.{i}": f"aux_classifier.{i}" for i in (0, 1, 4)} if aux else {}
    if architecture == "fcn":
        head |= {f"classifier.{i}": f"classifier.{i}" for i in (0, 1, 4)}
        return Naming(
            backbone,
            "backbone.{}".format,
            head,
            {"aux": aux},
            output_stride=8,
            preprocessing=IMAGENET,
            resize="torchvision",
        )
    head |= _aspp("classifier.0") | unit("aspp.refine", "classifier", 1) | {"classifier": "classifier.4"}
    options: dict[str, Any] = {"refine": True, "dropout": 0.5, "aux": aux}
    if not mobile:
        return Naming(
            backbone,
            "backbone.{}".format,
            head,
            options,
            output_stride=8,
            preprocessing=IMAGENET,
            pooled_last=True,
            resize="torchvision",
        )
    options |= {"rates": (12, 24, 36), "multi_grid": _denser(3)}
    return Naming(
        backbone,
        _mobilenetv3,
        head,
        options,
        eps=1e-3,
        preprocessing=IMAGENET,
        pooled_last=True,
        resize="torchvision",
        unused=("aux_classifier.",),  # on features of stride 8
    )


_MOBILENETV3 = "mobilenetv3_large_100"
_MOBILENETV3_FIRST = (1, 2, 4, 7, 11, 13, 16)  # torchvision's numbers of the first blocks of timm's stages
_MOBILENETV3_PARTS = {
    **{"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1"},
    **{"se.conv_reduce": "2.fc1", "se.conv_expand": "2.fc2", "conv_pwl": "-1.0", "bn3": "-1.1"},
}


def _mobilenetv3(layer: str) -> str:
    if not layer.startswith("blocks."):
        return f"backbone.0.{int(layer == 'bn1')}"
    _, stage, block, part = layer.split(".", 3)
    number = _MOBILENETV3_FIRST[int(stage)] + int(block)
    if number == 16:
        return f"backbone.16.{int(part == 'bn1')}"
    if number == 1:  # the first block does not expand
        return f"backbone.1.block.{ {'conv_dw': '0.0', 'bn1': '0.1', 'conv_pw': '1.0', 'bn2': '1.1'}[part] }"
    squeezed = int(stage) in (2, 4, 5)
    return f"backbone.{number}.block.{_MOBILENETV3_PARTS[part].replace('-1', '3' if squeezed else '2')}"


def _smp_backbone(source: FileTensors, _: str) -> str:
    return _resnet(source, "encoder.", _RESNETS)


def _smp(architecture: str, backbone: str, _: Has) -> Naming:
    options: dict[str, Any] = {"rates": (12, 24, 36), "multi_grid": _denser(_LAST_BLOCK.get(backbone, 3))}
    options |= {"refine": True, "dropout": 0.5}
    head: dict[str, str | tuple[str, str]] = {"classifier": "segmentation_head.0"}
    if architecture == "deeplabv3":
        head |= _aspp("decoder.aspp") | {"aspp.refine.0": "decoder.conv", "aspp.refine.1": "decoder.bn"}
    else:
        options["decoder_convs"] = 1
        head |= _aspp("decoder.aspp.0") | unit("decoder.steps.0.project", "decoder.block1")
        for i in range(3):
            head |= _row(f"aspp.atrous.{i}", f"decoder.aspp.0.convs.{i + 1}.0", f"decoder.aspp.0.convs.{i + 1}.1")
        head |= _row("aspp.refine", "decoder.aspp.1", "decoder.aspp.2")
        head |= _row("decoder.steps.0.refine.0", "decoder.block2.0", "decoder.block2.1")
    return Naming(backbone, "encoder.{}".format, head, options, preprocessing=IMAGENET, pooled_last=True)


def _row(ours: str, convs: str, norm: str) -> Layers:
    return {f"{ours}.0": (f"{convs}.0", f"{convs}.1"), f"{ours}.1": norm}


def _transformers_backbone(source: FileTensors, _: str) -> str:
    return mobilenetv2(source, "mobilenet_v2.layer.15.reduce_1x1.convolution.weight")


def _transformers(_: str, backbone: str, __: Has) -> Naming:
    head = {"classifier": "segmentation_head.classifier.convolution"}
    for ours, theirs in {"pooled": "conv_pool", "pointwise": "conv_aspp", "project": "conv_projection"}.items():
        parts = (f"segmentation_head.{theirs}.{part}" for part in ("convolution", "normalization"))
        head |= dict(zip((f"aspp.{ours}.0", f"aspp.{ours}.1"), parts, strict=True))
    return Naming(
        backbone,
        _transformers_layer,
        head,
        {"rates": ()},
        eps=1e-3,
        preprocessing=UNIT,
        unused=("mobilenet_v2.conv_1x1.",),
    )


def _transformers_layer(layer: str) -> str:
    if not layer.startswith("blocks."):
        place, norm = "conv_stem.first_conv", layer == "bn1"
    else:
        number, part, norm = mobilenetv2_place(layer)
        name = ("expand_1x1", "conv_3x3", "reduce_1x1")[part]
        place = f"layer.{number - 1}.{name}" if number else f"conv_stem.{name}"
    return f"mobilenet_v2.{place}.{'normalization' if norm else 'convolution'}"


def _vainf_backbone(source: FileTensors, _: str) -> str:
    if any(name.startswith("backbone.low_level_features.") for name in source.names()):
        raise ConversionError(
            f"{source.file} has VainF's MobileNetV2, which is not supported: it pads before it expands, unlike any "
            "network here; VainF's ResNets are supported"
        )
    return _resnet(source, "backbone.", _BOTTLENECKS)


def _vainf(architecture: str, backbone: str, _: Has) -> Naming:
    options: dict[str, Any]
    if architecture == "deeplabv3":
        head = _aspp("classifier.classifier.0") | unit("aspp.refine", "classifier.classifier", 1)
        head |= {"classifier": "classifier.classifier.4"}
        options = {"refine": True}
    else:
        head = _aspp("classifier.aspp") | unit("decoder.steps.0.project", "classifier.project")
        head |= unit("decoder.steps.0.refine.0", "classifier.classifier") | {"classifier": "classifier.classifier.3"}
        options = {"decoder_convs": 1}
    return Naming(
        backbone,
        "backbone.{}".format,
        head,
        options,
        preprocessing=IMAGENET,
        pooled_last=True,
        low_level_first=architecture == "deeplabv3plus",
    )


def _jfzhang95_backbone(source: FileTensors, _: str) -> str:
    if "backbone.layer4.2.conv3.weight" not in source:
        raise ConversionError(
            f"{source.file} has another backbone than ResNet-101 (no backbone.layer4.2.conv3.weight, but "
            f"{source.beginning()}): jfzhang95's Xception, which differs from the authors' (128 low-level channels "
            "instead of 256), and its MobileNetV2 and DRN are not supported"
        )
    return _resnet(source, "backbone.", {"resnet101": _BOTTLENECKS["resnet101"]})


def _jfzhang95(_: str, backbone: str, has: Has) -> Naming:
    head = {f"aspp.{ours}.{i}": f"aspp.{theirs}" for ours, both in _JF_ASPP.items() for i, theirs in enumerate(both)}
    step = 4 if has("decoder.last_conv.8.weight") else 3  # the later form has dropout in between
    head |= {"decoder.steps.0.project.0": "decoder.conv1", "decoder.steps.0.project.1": "decoder.bn1"}
    for i in range(2):
        head |= unit(f"decoder.steps.0.refine.{i}", "decoder.last_conv", i * step)
    head["classifier"] = f"decoder.last_conv.{2 * step}"
    options = {"multi_grid": (2, 2, 4), "dropout": 0.5}
    return Naming(backbone, "backbone.{}".format, head, options, preprocessing=IMAGENET, pooled_last=True)


_JF_ASPP = {
    "pointwise": ("aspp1.atrous_conv", "aspp1.bn"),
    **{f"atrous.{i}": (f"aspp{i + 2}.atrous_conv", f"aspp{i + 2}.bn") for i in range(3)},
    "pooled": ("global_avg_pool.1", "global_avg_pool.2"),
    "project": ("conv1", "bn1"),
}


def _denser(convs: int) -> tuple[int, ...]:
    """The multi-grid of a block whose first convolution, which loses its stride, already has the new rate; in our
    backbones it keeps the old one.
    """
    return (2, *[1] * (convs - 1))


def _aspp(place: str) -> dict[str, str]:
    """ASPP in torchvision's names, which others follow: 1×1, three rates, image pooling."""
    head = unit("aspp.pointwise", f"{place}.convs.0") | unit("aspp.pooled", f"{place}.convs.4", 1)
    for i in range(3):
        head |= unit(f"aspp.atrous.{i}", f"{place}.convs.{i + 1}")
    return head | unit("aspp.project", f"{place}.project")


def _resnet(source: FileTensors, prefix: str, known: _ResNets, otherwise: str = "") -> str:
    """Our name of a ResNet, one of those of a layout, from the numbers of units of its blocks."""
    names = source.names()
    units = tuple(
        len({n.split(".")[2] for n in names if n.startswith(f"{prefix}layer{block}.")}) for block in range(1, 5)
    )
    convs = 3 if f"{prefix}layer1.0.conv3.weight" in source else 2
    if f"{prefix}conv1.weight" not in source or not all(units):
        raise ConversionError(
            f"{source.file} is not a network on a known ResNet ({', '.join(known)}): expected {prefix}conv1.weight, "
            f"{prefix}layer1.0...{otherwise}, found {source.beginning()}"
        )
    for name, form in known.items():
        if form == (convs, units):
            return name
    expected = ", or ".join(f"{_described(*form)} ({name})" for name, form in known.items())
    raise ConversionError(f"{source.file} has an unknown ResNet: expected {expected}, found {_described(convs, units)}")


def _described(convs: int, units: tuple[int, ...]) -> str:
    return f"{' + '.join(map(str, units))} units of {convs} convolutions"


DEEPLABV3_LAYOUTS = {
    "torchvision": Layout((*_BOTTLENECKS, _MOBILENETV3), _torchvision_backbone, _torchvision),
    "smp": Layout((*_RESNETS,), _smp_backbone, _smp),
    "transformers": Layout(MOBILENETV2S, _transformers_backbone, _transformers),
    "vainf": Layout((*_BOTTLENECKS,), _vainf_backbone, _vainf),
    "jfzhang95": Layout(("resnet101",), _jfzhang95_backbone, _jfzhang95),
}
