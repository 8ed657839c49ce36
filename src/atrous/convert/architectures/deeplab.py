"""DeepLab v1 and v2 in the authors' Caffe nets and in PyTorch implementations.

All read blue, green, red, 0 to 255, minus Caffe's mean colour. Layouts:

- ``caffe``: the authors' VGG-16 (``fc6``, ``fc7``, ``fc8_voc12``; for ASPP ``fc6_1`` … ``fc8_voc12_4``) and ResNet-101
  (``res2a_branch2a``, ``bn2a_branch2a``, ``scale2a_branch2a``, ``fc1_voc12_c0`` …);
- ``kazuto1011``: github.com/kazuto1011/deeplab-pytorch, with a prefix ``base.`` for three image scales;
- ``isht7``: github.com/isht7/pytorch-deeplab-resnet, with ``Scale.`` likewise;
- ``adaptsegnet``: github.com/wasidennis/AdaptSegNet and its descendants, with isht7's names. Its classifier returns
  from within its loop, so it is the sum of the first two rates only; the other two were never trained. Its second
  classifier, on the stage before, was used only in training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atrous.convert.tensors import ConversionError, FileTensors
from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.models.base import Preprocessing, SegmentationModel
from atrous.models.create import create_model
from atrous.models.deeplab import FC_WIDTH, DeepLab
from atrous.models.multi_scale import MultiScale

MEAN = (122.675, 116.669, 104.008)
ASPP_RATES = (6, 12, 18, 24)
RATE_OF_KERNEL = {1: 1, 3: 12, 4: 4, 7: 4}
"""The rates of the published nets by kernel size; a file does not contain them."""
SCALES = (1.0, 0.75, 0.5)
"""Image scales of DeepLab v2 (arXiv 1606.00915, §3.2), whose logits are merged by their maximum."""


class Naming(NamedTuple):
    """A file's names for the layers of a network.

    Args:
        backbone: our name of the backbone.
        branches: the layers of each branch, the last of which is its classifier.
        backbone_key: the file's name of a tensor, from our layer (``layer1.0.bn2``) and its kind (``running_mean``).
        scales: image scales with which the network was trained.
    """

    backbone: str
    branches: Sequence[tuple[str, ...]]
    backbone_key: Callable[[str, str], str]
    scales: tuple[float, ...] = (1.0,)


def deeplab_from(
    source: FileTensors,
    architecture: str,
    layout: str,
    label_set: LabelSet | None,
    rates: Sequence[int] | None,
    scales: Sequence[float] | None,
) -> SegmentationModel:
    """Build the model of a file's tensors.

    Args:
        source: the tensors by the file's names; all are taken.
        architecture: ``deeplab_largefov`` or ``deeplab_aspp``.
        layout: one of ``LAYOUTS``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        rates: rates of the branches at output stride 8; by default the published ones.
        scales: image scales, whose logits are merged by their maximum; by default those of the training.

    Raises:
        ConversionError: the file contains another network; the message lists the differences.
        InputError: the number of rates is not that of branches, or the number of labels not that of classes; scales for
            an architecture without ASPP.
    """
    naming = LAYOUTS[layout](source)
    source.split_sigmoid(*(branch[-1] for branch in naming.branches))
    first, last = (naming.branches[0][i] for i in (0, -1))
    kernel = source.shape(f"{first}.weight")[-1]
    aspp = architecture == "deeplab_aspp"
    if aspp == (len(naming.branches) == 1):
        other = "deeplab_largefov" if aspp else "deeplab_aspp"
        raise ConversionError(f"{source.file} has {len(naming.branches)} branch(es): convert it as {other}")
    if rates is None:
        rates = ASPP_RATES[: len(naming.branches)] if aspp else (RATE_OF_KERNEL.get(kernel, 1),)
    if len(rates) != len(naming.branches):
        raise InputError(f"{len(rates)} rates for the {len(naming.branches)} branch(es) of {source.file}")
    options: dict[str, Any] = {"rates": tuple(rates)} if aspp else {"rate": rates[0], "kernel": kernel}
    if len(naming.branches[0]) > 1 and (width := source.shape(f"{first}.weight")[0]) != FC_WIDTH:
        options["width"] = width
    scales = tuple(scales or naming.scales)
    if scales != (1.0,):
        if not aspp:
            raise InputError(f"scales are for deeplab_aspp, not for {architecture}")
        options["scales"] = scales
    with torch.device("meta"):
        model = create_model(
            architecture,
            backbone=naming.backbone,
            label_set=source.label_set(label_set, source.shape(f"{last}.weight")[0]),
            **options,
        )
    network = model.base if isinstance(model, MultiScale) else model
    assert isinstance(network, DeepLab)
    weights = _weights(source, network, naming)
    source.finish(f"{architecture} on {naming.backbone}")
    network.load_state_dict(weights, assign=True)
    model.preprocessing = Preprocessing(tuple(value / 255 for value in MEAN), (1 / 255,) * 3)
    return model.eval()


def _weights(source: FileTensors, model: DeepLab, naming: Naming) -> dict[str, Tensor]:
    heads = {
        ours: theirs
        for names, others in zip(model.branches, naming.branches, strict=True)
        for ours, theirs in zip(names, others, strict=True)
    }
    weights = {}
    for key, slot in model.state_dict().items():
        layer, _, kind = key.removeprefix("backbone.net.").rpartition(".")
        if layer in heads:
            weights[key] = source.take(f"{heads[layer]}.{kind}", tuple(slot.shape))
        elif kind == "num_batches_tracked":
            source.drop(naming.backbone_key(layer, kind))
            weights[key] = torch.zeros((), dtype=torch.long)
        else:
            tensor = source.take(naming.backbone_key(layer, kind), tuple(slot.shape))
            weights[key] = tensor.flip(1) if layer in ("conv1", "conv1_1") and kind == "weight" else tensor
    return weights


def _caffe(source: FileTensors) -> Naming:
    layers = dict.fromkeys(name.rpartition(".")[0] for name in source.names())
    vgg, resnet = ([name for name in layers if re.match(kind, name)] for kind in ("fc8_", "fc1_"))
    if "conv1_1" in layers and vgg:
        hidden = [("fc6", "fc7")] if "fc6" in layers else [(f"fc6_{i}", f"fc7_{i}") for i in range(1, len(vgg) + 1)]
        if len(hidden) != len(vgg):
            raise ConversionError(
                f"{source.file} has {len(hidden)} fc6 layers, but {len(vgg)} classifiers: {', '.join(vgg)}"
            )
        branches = [(*names, classifier) for names, classifier in zip(hidden, sorted(vgg), strict=True)]
        return Naming("vgg16", branches, "{}.{}".format, source.scales)
    if "res2a_branch1" in layers and resnet:
        return Naming("resnet101", [(name,) for name in sorted(resnet)], _caffe_resnet, source.scales)
    raise ConversionError(
        f"{source.file} is not a DeepLab: expected conv1_1, ..., fc8_... (VGG-16) or res2a_branch1, ..., fc1_... "
        f"(ResNet-101), found {', '.join(list(layers)[:3])}, ..."
    )


_BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "downsample.0": "branch1"}
_NORMS = {"bn1": "branch2a", "bn2": "branch2b", "bn3": "branch2c", "downsample.1": "branch1"}


def _caffe_resnet(layer: str, kind: str) -> str:
    if layer.startswith("layer"):
        stage, block, part = _place(layer)
        letter = "abc"[block] if stage in (1, 4) else f"b{block}" if block else "a"
        place = f"{stage + 1}{letter}_{_BRANCHES.get(part) or _NORMS[part]}"
        if part in _BRANCHES:
            return f"res{place}.{kind}"
    elif layer == "conv1":
        return f"conv1.{kind}"
    else:
        place = "_conv1"
    return f"{'bn' if kind.startswith('running') else 'scale'}{place}.{kind}"


_KAZUTO = {
    **{"conv1": "reduce.conv", "conv2": "conv3x3.conv", "conv3": "increase.conv", "downsample.0": "shortcut.conv"},
    **{"bn1": "reduce.bn", "bn2": "conv3x3.bn", "bn3": "increase.bn", "downsample.1": "shortcut.bn"},
}


def _kazuto(source: FileTensors) -> Naming:
    prefix = "base." if "base.layer1.conv1.conv.weight" in source else ""

    def backbone_key(layer: str, kind: str) -> str:
        if not layer.startswith("layer"):
            return f"{prefix}layer1.conv1.{layer.rstrip('1')}.{kind}"
        stage, block, part = _place(layer)
        return f"{prefix}layer{stage + 1}.block{block + 1}.{_KAZUTO[part]}.{kind}"

    return Naming("resnet101", [(f"{prefix}aspp.c{i}",) for i in range(4)], backbone_key, SCALES if prefix else (1.0,))


def _isht7(source: FileTensors) -> Naming:
    prefix = "Scale." if "Scale.conv1.weight" in source else ""
    branches = [(f"{prefix}layer5.conv2d_list.{i}",) for i in range(4)]
    scales = SCALES if prefix else (1.0,)
    return Naming("resnet101", branches, lambda layer, kind: f"{prefix}{layer}.{kind}", scales)


def _adaptsegnet(source: FileTensors) -> Naming:
    head = "layer6" if "layer6.conv2d_list.0.weight" in source else "layer5"
    summed = [(f"{head}.conv2d_list.{i}",) for i in range(2)]
    heads = [name for name in source.names() if name.startswith(("layer5.", "layer6."))]
    used = tuple(f"{layer}." for (layer,) in summed)
    source.leave_out(name for name in heads if not name.startswith(used))
    return Naming("resnet101", summed, "{}.{}".format)


def _place(layer: str) -> tuple[int, int, str]:
    """``layer3.5.conv2`` → 3, 5, ``conv2``."""
    stage, block, part = layer.removeprefix("layer").split(".", 2)
    return int(stage), int(block), part


LAYOUTS: dict[str, Callable[[FileTensors], Naming]] = {
    "caffe": _caffe,
    "kazuto1011": _kazuto,
    "isht7": _isht7,
    "adaptsegnet": _adaptsegnet,
}
