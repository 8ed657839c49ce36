"""DeepLabv3 and v3+ of other programs.

A file has the layers of our backbone under other names. Its head may concatenate features in another order: the weights
that read them are permuted. Two of its convolutions in a row with nothing between them become one of ours. If its batch
norm has another epsilon, the variance is adjusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atrous.convert.tensors import ConversionError, FileTensors
from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.models.base import Preprocessing, Resize, SegmentationModel
from atrous.models.create import create_model

Layers = Mapping[str, str | tuple[str, str]]
UNIT = Preprocessing((0.5,) * 3, (0.5,) * 3)
"""Preprocessing to −1 … 1."""


class Naming(NamedTuple):
    """A file's names for the layers of a network, and its differences.

    Args:
        backbone: our name of the backbone.
        backbone_key: the file's name of a backbone layer, from ours (``layer1.0.bn2``).
        head: the file's names of the other layers by ours (``aspp.project.0``); for two convolutions in a row, both.
        options: the options of our architecture.
        output_stride: the output stride of the network in the file.
        eps: epsilon of the backbone's batch norm.
        preprocessing: preprocessing of its images.
        pooled_last: whether ASPP's image pooling comes last in its concatenation instead of first.
        low_level_first: whether the decoder's low-level features come first in its concatenation instead of last.
        narrow: whether layers of the backbone may have fewer channels than ours, whose others are then zero.
        resize: how its logits take the image's size.
        unused: prefixes of the names of tensors that have no effect on the logits.
    """

    backbone: str
    backbone_key: Callable[[str], str]
    head: Layers
    options: Mapping[str, Any]
    output_stride: int = 16
    eps: float = 1e-5
    preprocessing: Preprocessing = UNIT
    pooled_last: bool = False
    low_level_first: bool = False
    narrow: bool = False
    resize: Resize = "exact"
    unused: tuple[str, ...] = ()


def deeplabv3_from(
    source: FileTensors, architecture: str, naming: Naming, label_set: LabelSet | None, rates: Sequence[int] | None
) -> SegmentationModel:
    """Build the model of a file's tensors, in eval mode.

    Args:
        source: the tensors by the file's names, with PyTorch's kinds and shapes; all are taken.
        architecture: ``deeplabv3``, ``deeplabv3plus`` or ``fcn``.
        naming: the file's names.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        rates: rates of ASPP's branches at output stride 16; by default the published ones.

    Raises:
        ConversionError: the file contains another network; the message lists the differences.
        InputError: the number of rates is not that of branches, or the number of labels not that of classes.
    """
    options = dict(naming.options)
    if rates is not None:
        branches = len(options.get("rates", (6, 12, 18)))
        if len(rates) != branches:
            raise InputError(f"{len(rates)} rates for the {branches} atrous branches of {source.file}")
        options["rates"] = tuple(rates)
    classifier = naming.head.get("classifier") or naming.head["classifier.4"]
    source.split_sigmoid(str(classifier), *map(str, filter(None, [naming.head.get("aux_classifier.4")])))
    with torch.device("meta"):
        model = create_model(
            architecture,
            backbone=naming.backbone,
            label_set=source.label_set(label_set, source.shape(f"{classifier}.weight")[0]),
            output_stride=naming.output_stride,
            **options,
        )
    weights = _weights(source, model, naming)
    source.leave_out(name for name in source.names() if name.startswith(naming.unused))
    source.finish(f"{architecture} on {naming.backbone}")
    model.load_state_dict(weights, assign=True)
    model.preprocessing, model.resize = naming.preprocessing, naming.resize
    return model.eval()


class _Slot(NamedTuple):
    """A tensor of ours and its name in the file; two names if our convolution replaces two."""

    name: str
    shape: tuple[int, ...]
    theirs: str | tuple[str, str]
    of_backbone: bool


def _slots(model: SegmentationModel, naming: Naming) -> Iterator[_Slot]:
    for path, module in model.named_modules():
        ours = path.removeprefix("backbone.net.")
        tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        if tensors:
            theirs = naming.backbone_key(ours) if path != ours else naming.head[ours]
            for kind, tensor in tensors.items():
                place = theirs if isinstance(theirs, tuple) else f"{theirs}.{kind}"
                yield _Slot(f"{path}.{kind}", tuple(tensor.shape), place, path != ours)


def _weights(source: FileTensors, model: SegmentationModel, naming: Naming) -> dict[str, Tensor]:
    weights = {}
    for name, shape, theirs, of_backbone in _slots(model, naming):
        if isinstance(theirs, tuple):
            weights[name] = _merged(source, theirs, shape)
        else:
            weights[name] = _tensor(source, theirs, shape, naming.narrow and of_backbone)
        if of_backbone and name.endswith(".running_var"):
            weights[name] = weights[name] + (naming.eps - _eps(model, name))
    _reorder(weights, naming)
    return weights


def deeplabv3_to(model: SegmentationModel, naming: Naming) -> dict[str, Tensor]:
    """A model's tensors under another program's names: the reverse of :func:`deeplabv3_from`.

    Args:
        model: one with the architecture and the options of ``naming``.
        naming: the other program's names, without pairs of convolutions.

    Raises:
        ConversionError: one of our convolutions is two in the other program.
    """
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _reorder(weights, naming, back=True)
    found = {}
    for name, _, theirs, of_backbone in _slots(model, naming):
        if isinstance(theirs, tuple):
            raise ConversionError(f"{name} can't be written as two convolutions, {' and '.join(theirs)}")
        if of_backbone and name.endswith(".running_var"):
            _change_eps(weights, name, naming.eps - _eps(model, name), naming.eps)
        found[theirs] = weights[name]
    return found


def _eps(model: SegmentationModel, name: str) -> float:
    """The epsilon of the batch norm to which a tensor belongs."""
    return float(model.get_submodule(name.rpartition(".")[0]).eps)  # type: ignore[arg-type]


def _change_eps(weights: dict[str, Tensor], name: str, more: float, eps: float) -> None:
    """Adapt a batch norm to another epsilon, by its variance and, where that would become negative, by its weight."""
    path = name.rpartition(".")[0]
    wanted = weights[name] - more
    weights[name] = wanted.clamp(min=0)
    weights[f"{path}.weight"] *= ((weights[name] + eps) / (wanted + eps)).sqrt()


def _tensor(source: FileTensors, name: str, shape: tuple[int, ...], narrow: bool) -> Tensor:
    if name.endswith(".num_batches_tracked"):
        source.drop(name)
        return torch.zeros((), dtype=torch.long)
    if not narrow or name not in source:
        return source.take(name, shape)
    own = (*map(min, shape[:2], source.shape(name)), *shape[2:])
    wide = torch.full(shape, 1.0 if name.endswith(".running_var") else 0.0)
    wide[tuple(map(slice, own))] = source.take(name, own)
    return wide


def _merged(source: FileTensors, names: tuple[str, str], shape: tuple[int, ...]) -> Tensor:
    """The convolution that is equivalent to a depthwise one followed directly by a pointwise one."""
    depthwise = source.take(f"{names[0]}.weight", (shape[1], 1, *shape[2:]))
    return source.take(f"{names[1]}.weight", (*shape[:2], 1, 1)) * depthwise.transpose(0, 1)


def _reorder(weights: dict[str, Tensor], naming: Naming, *, back: bool = False) -> None:
    """Permute the weights that read concatenated features to our order, or back to theirs."""
    turn = -1 if back else 1
    if naming.pooled_last:
        project = weights["aspp.project.0.weight"]
        weights["aspp.project.0.weight"] = project.roll(turn * project.shape[0], 1)
    if naming.low_level_first:
        first = weights["decoder.steps.0.refine.0.0.weight"]
        low_level = len(weights["decoder.steps.0.project.0.weight"])
        weights["decoder.steps.0.refine.0.0.weight"] = first.roll(-turn * low_level, 1)


def unit(ours: str, theirs: str, first: int = 0) -> dict[str, str]:
    """The names of a convolution and its batch norm in a ``Sequential``."""
    return {f"{ours}.0": f"{theirs}.{first}", f"{ours}.1": f"{theirs}.{first + 1}"}


_GROUPS = (1, 2, 3, 4, 3, 3, 1)  # number of MobileNetV2's residual blocks by stage
_PARTS = {"conv_pw": 0, "bn1": 0, "conv_dw": 1, "bn2": 1, "conv_pwl": 2, "bn3": 2}
_FIRST_PARTS = {"conv_dw": 1, "bn1": 1, "conv_pw": 2, "bn2": 2}  # the first block does not expand
_WIDTHS = {112: "035", 160: "050", 240: "075", 320: "100", 448: "140"}
MOBILENETV2S = tuple(f"mobilenetv2_{width}" for width in _WIDTHS.values())


def mobilenetv2(source: FileTensors, last: str) -> str:
    """Our name of a MobileNetV2, from the number of channels of its last block.

    Raises:
        ConversionError: the number is unknown, or the file has no such tensor.
    """
    channels = source.shape(last)[0]
    if channels not in _WIDTHS:
        raise ConversionError(f"{source.file}: unknown MobileNetV2 of {channels} channels; known are {list(_WIDTHS)}")
    return f"mobilenetv2_{_WIDTHS[channels]}"


def mobilenetv2_place(layer: str) -> tuple[int, int, bool]:
    """The position of a MobileNetV2 layer (``blocks.1.0.conv_pw``): the index of its block in the network, its part of
    the block (0 expansion, 1 depthwise convolution, 2 projection), and whether it is the batch norm.
    """
    _, stage, block, name = layer.split(".")
    number = sum(_GROUPS[: int(stage)]) + int(block)
    return number, (_PARTS if number else _FIRST_PARTS)[name], name.startswith("bn")
