"""Building a model by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
from torch import nn

from atrous.errors import InputError, InputTypeError, kind_of
from atrous.labels import LabelSet, one_class_message
from atrous.models.backbones.base import Backbone
from atrous.models.backbones.fused import FusedBackbone
from atrous.models.backbones.timm import TimmBackbone
from atrous.models.backbones.traced import TracedBackbone
from atrous.models.backbones.transformer import TransformerBackbone
from atrous.models.base import SegmentationModel
from atrous.models.options import check_options
from atrous.models.registry import ARCHITECTURES, BACKBONES, BackboneBuilder
from atrous.models.surgery.trace import GeometryError


def create_model(
    name: str,
    *,
    backbone: str | nn.Module,
    num_classes: int | None = None,
    label_set: LabelSet | Sequence[str] | None = None,
    output_stride: int | None = None,
    in_channels: int | None = None,
    pretrained: bool | str | Path = False,
    **options: Any,
) -> SegmentationModel:
    """Build a model.

    Args:
        name: one of ``atrous.models.ARCHITECTURES``, for example ``deeplabv3plus``.
        backbone: the name of a timm model, of one of the paper's own backbones, or of one that
            :func:`atrous.register_backbone` made known; names joined by ``+`` are backbones side by side, each with its
            share of the channels. timm's transformers stay at their native strides
            (:class:`~atrous.models.backbones.TransformerBackbone`). Or a :class:`Backbone`, used as it is: it has its
            own ``in_channels`` and weights, and keeps its output stride when none is given. Or any plain convolutional
            network, of which a copy is taken (:class:`~atrous.models.backbones.TracedBackbone`).
        num_classes: number of real classes; not needed beside ``label_set``.
        label_set: class names, or a :class:`LabelSet`.
        output_stride: 4, 8, 16 or 32; the architecture's own when left out (16; 32 for FCNs with skips; 8 for ``fcn``
            and DeepLab v1 and v2), or the backbone's where it is finer or fixed. ``model.output_stride`` changes it
            later.
        in_channels: channels of the images; 3 when left out.
        pretrained: backbone weights: ``True`` (an installed package, else timm's hub), a file, or ``False``.
        options: arguments of the architecture (``separable``, ``rates``, ...).

    Raises:
        InputError: an unknown name, a single class, class counts that disagree, a backbone that does not fit, or an
            option's value that is not allowed.
        InputTypeError: an option that the architecture does not have.
        WeightsNotFoundError: pretrained weights that can't be found.

    Example:
        >>> import atrous, torch
        >>> model = atrous.create_model("deeplabv3plus", backbone="mobilenetv2_100", num_classes=21)
        >>> model(torch.zeros(1, 3, 65, 97)).shape
        torch.Size([1, 21, 65, 97])
    """
    options = check_options(name, ARCHITECTURES.find(name).build, options)
    for key, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise InputError(f"{key} is an integer ≥ 1, not {count!r}")
    if num_classes == 1:
        raise InputError(f"num_classes is 1: {one_class_message()}, or num_classes=2")
    classes = _label_set(label_set, num_classes)
    if isinstance(backbone, str):
        base = options.get("base", name)  # attention_to_scale takes the backbones of the network it shares
        used = _build_backbone(base, backbone, in_channels, pretrained, output_stride)
    elif isinstance(backbone, nn.Module):
        used = _use_module(
            backbone, in_channels, pretrained, ARCHITECTURES.find(options.get("base", name)).output_stride
        )
    else:
        raise InputTypeError(f"backbone is a name, a Backbone or a plain nn.Module, not {kind_of(backbone)}")
    if output_stride is not None:
        used.output_stride = output_stride
    return build_on(used, name, classes, options)


def build_on(backbone: Backbone, name: str, label_set: LabelSet, options: dict[str, Any]) -> SegmentationModel:
    """Build a model on an existing backbone.

    Args:
        backbone: the backbone.
        name: the architecture.
        label_set: the classes.
        options: arguments of the architecture.

    Raises:
        InputError, InputTypeError: as for :func:`create_model`.
    """
    build = ARCHITECTURES.find(name).build
    options = check_options(name, build, options)
    model = build(backbone=backbone, label_set=label_set, **options)
    model.config = {
        "architecture": name,
        "backbone": backbone.name,
        "in_channels": backbone.in_channels,
        "options": json.loads(json.dumps(options)),  # as it comes back from config.json: tuples are lists
    }
    return model


def _label_set(label_set: LabelSet | Sequence[str] | None, num_classes: int | None) -> LabelSet:
    if label_set is None:
        if num_classes is None:
            raise InputError("create_model needs num_classes or label_set")
        return LabelSet.numbered(num_classes)
    label_set = LabelSet.of(label_set)
    if num_classes not in (None, len(label_set)):
        raise InputError(f"num_classes is {num_classes}, but label_set has {len(label_set)} classes")
    return label_set


def _use_module(net: nn.Module, in_channels: int | None, pretrained: bool | str | Path, output_stride: int) -> Backbone:
    if pretrained is not False:
        raise InputError("pretrained is for a backbone given by name; load the weights into the backbone beforehand")
    backbone = net if isinstance(net, Backbone) else _traced(net, None, in_channels, output_stride)
    if in_channels not in (None, backbone.in_channels):
        raise InputError(f"in_channels is {in_channels}, but the backbone takes {backbone.in_channels} channels")
    return backbone


def _traced(net: nn.Module, name: str | None, in_channels: int | None, output_stride: int) -> Backbone:
    """A plain network as a backbone, at an output stride or at its own where that is finer."""
    backbone = TracedBackbone(net, name, in_channels=in_channels)
    backbone.output_stride = min(output_stride, backbone.output_stride)
    return backbone


def _timm_backbone(name: str, *, in_channels: int, pretrained: bool | str | Path, output_stride: int) -> Backbone:
    """A timm network: at an output stride if it is convolutional, otherwise at its native one."""
    try:
        return TimmBackbone(name, in_channels=in_channels, pretrained=pretrained, output_stride=output_stride)
    except GeometryError:
        return TransformerBackbone(name, in_channels=in_channels, pretrained=pretrained)


def _build_backbone(
    architecture: str, name: str, in_channels: int | None, pretrained: bool | str | Path, output_stride: int | None
) -> Backbone:
    owner = ARCHITECTURES.find(architecture)
    names, channels = name.split("+"), 3 if in_channels is None else in_channels
    builders = [_backbone_builder(architecture, part, owner.backbones) for part in names]
    if channels % len(names):
        raise InputError(f"{channels} channels can't be divided evenly among {len(names)} backbones ({name})")
    backbones = []
    for part, build in zip(names, builders, strict=True):
        stride = owner.output_stride if output_stride is None else output_stride
        net = build(in_channels=channels // len(names), pretrained=pretrained, output_stride=stride)
        backbone = net if isinstance(net, Backbone) else _traced(net, part, channels // len(names), stride)
        backbone.name = part  # by which it is built again
        backbones.append(backbone)
    return FusedBackbone(backbones) if len(backbones) > 1 else backbones[0]


def _backbone_builder(architecture: str, name: str, published: Mapping[str, BackboneBuilder]) -> BackboneBuilder:
    if name in published:
        return published[name]
    if name in BACKBONES:
        return BACKBONES.find(name)
    owners = sorted(other for other, kind in ARCHITECTURES.items() if name in kind.backbones)
    if owners and not timm.is_model(name):
        raise InputError(
            f"'{architecture}' has no backbone '{name}', which is for {', '.join(owners)}; it takes any "
            "network of timm's, such as resnet50"
        )
    return partial(_timm_backbone, name)
