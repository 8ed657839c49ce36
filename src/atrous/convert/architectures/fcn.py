"""The released FCNs (github.com/shelhamer/fcn.berkeleyvision.org): from their layers' names to our models.

All have the form of :class:`atrous.models.fcn.PaddedFCN`. NYUDv2's early fusion reads blue, green, red and depth
(``conv1_1_bgrd``); its late fusion has two backbones (``conv1_1color``, ``conv1_1hha``, ...) whose logits are averaged;
SIFT Flow's nets have two heads (``score_fr_sem``, ``score_fr_geo``). Deconvolutions are bilinear and fixed: their
arrays are checked and left out. Those between the skips that are not bilinear were learned (arXiv 1411.4038, §4.3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.convert.tensors import ConversionError, FileTensors
from atrous.data.sources.nyud import FARTHEST, HHA_MEAN, LOG_DEPTH_MEAN, NEAREST
from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.models.base import Preprocessing, SegmentationModel
from atrous.models.create import create_model
from atrous.models.layers import bilinear_kernel


class Colors(NamedTuple):
    """The input of a backbone: the mean of each channel (0–255) in our order, its index in the file's order, and the
    factor that it is multiplied with after subtracting the mean.
    """

    mean: tuple[float, ...]
    order: tuple[int, ...]
    gain: tuple[float, ...] = (1.0, 1.0, 1.0)


_BGR = (2, 1, 0)
_NYUD = (92.318, 97.203, 116.190)
_STEP = (FARTHEST - NEAREST) / 255  # of the logarithm of depth, between neighbouring values of its channel
INPUTS = {
    "voc": Colors((122.67892, 116.66877, 104.00699), _BGR),
    "siftflow": Colors((108.353, 115.294, 114.578), _BGR),
    "nyud": Colors(_NYUD, _BGR),
    "nyud-hha": Colors(HHA_MEAN, (0, 1, 2)),
    "nyud-rgbd": Colors((*_NYUD, (LOG_DEPTH_MEAN - NEAREST) / _STEP), (*_BGR, 3), (1.0, 1.0, 1.0, _STEP)),
}
"""The inputs of the released nets; those of PASCAL-Context are like ``voc``. HHA has the channel order of its files.
The nets read the natural logarithm of depth; here it is the channel that
:func:`atrous.data.sources.nyud.read_log_depth` reads.
"""
UPSAMPLING = {
    "fcn32s": {"upscore": 32},
    "fcn16s": {"upscore2": 2, "upscore16": 16},
    "fcn8s": {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8},
}
"""The deconvolutions of each net and their factors."""
_SCORERS = ("score_fr", "score_pool4", "score_pool3")
_SKIPS = {"pool4": 0.01, "pool3": 0.0001}  # the Scale layers of the nets trained at once


def fcn_from(
    source: FileTensors, architecture: str, label_set: LabelSet | None, inputs: str | None, at_once: bool
) -> SegmentationModel:
    """Build the model of a file's tensors, which are named like Caffe's layers.

    Args:
        source: ``conv1_1.weight``, ``conv1_1.bias`` and so on; all are taken.
        architecture: ``fcn32s``, ``fcn16s`` or ``fcn8s``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        inputs: one of ``INPUTS``; by default found from the numbers of channels, heads and classes, which does not
            distinguish ``nyud-hha`` from ``nyud``.
        at_once: whether an ``fcn8s`` scales its features even if the file does not show it.

    Raises:
        ConversionError: the file contains another network; the message lists the differences.
        InputError: the number of labels is not the file's number of classes.
    """
    backbones = ("color", "hha") if "conv1_1color.weight" in source else ("",)
    heads = ("_sem", "_geo") if "score_fr_sem.weight" in source else ("",)
    backbone, first = _backbone(source, backbones)
    colors = _colors(source, first, heads, backbones, inputs)
    options = _options(source, architecture, backbone, heads)
    if len(heads) == 1:
        source.split_sigmoid(*(f"{layer}{end}" for layer in _SCORERS for end in backbones))
    counts = [source.shape(f"score_fr{head}{backbones[0]}.weight")[0] for head in heads]
    if at_once:
        options["at_once"] = True
    if len(heads) > 1:
        options["heads"] = {"geometric": counts[1]}
    with torch.device("meta"):
        model = create_model(
            architecture,
            backbone="+".join([backbone] * len(backbones)),
            label_set=source.label_set(label_set, counts[0]),
            in_channels=sum(len(seen.mean) for seen in colors),
            **options,
        )
    names = _Names(first, backbones, heads, counts, [seen.order for seen in colors])
    weights = {key: names.take(source, key, tuple(slot.shape)) for key, slot in model.state_dict().items()}
    source.finish(f"{architecture} on {model.backbone.name}")
    model.load_state_dict(weights, assign=True)
    mean = tuple(value / 255 for seen in colors for value in seen.mean)
    std = tuple(1 / (255 * gain) for seen in colors for gain in seen.gain)
    model.preprocessing = Preprocessing(mean, std)
    return model.eval()


class _Names(NamedTuple):
    """The correspondence of a file's tensors to ours."""

    first: str
    backbones: tuple[str, ...]
    heads: tuple[str, ...]
    counts: list[int]
    orders: list[tuple[int, ...]]

    def take(self, source: FileTensors, key: str, shape: tuple[int, ...]) -> Tensor:
        *path, layer, kind = key.split(".")
        if layer.startswith("upscore"):
            return self._learned(source, layer, shape)
        if layer.startswith("score"):
            return self._scorer(source, layer, kind, shape)
        backbone = int(path[path.index("backbones") + 1]) if "backbones" in path else 0
        if layer not in ("conv1", "conv1_1"):
            return source.take(f"{layer}{self.backbones[backbone]}.{kind}", shape)
        tensor = source.take(f"{self.first}{self.backbones[backbone]}.{kind}", shape)
        return tensor[:, list(self.orders[backbone])] if kind == "weight" else tensor

    def _scorer(self, source: FileTensors, layer: str, kind: str, shape: tuple[int, ...]) -> Tensor:
        """Several heads are concatenated by output, several backbones by input; their logits are averaged."""
        parts = []
        for head, count in zip(self.heads, self.counts, strict=True):
            sides = (count, shape[1] // len(self.backbones), 1, 1) if kind == "weight" else (count,)
            both = [source.take(f"{layer}{head}{backbone}.{kind}", sides) for backbone in self.backbones]
            parts.append((torch.cat(both, 1) if kind == "weight" else torch.stack(both).sum(0)) / len(both))
        return torch.cat(parts)

    def _learned(self, source: FileTensors, layer: str, shape: tuple[int, ...]) -> Tensor:
        weight, begin = torch.zeros(shape), int(source.binary)
        for head, count in zip(self.heads, [1] if source.binary else self.counts, strict=True):
            part = slice(begin, begin + count)
            weight[part, part] = source.take(f"{layer}{head}.weight", (count, count, *shape[2:]))
            begin += count
        return weight


def _backbone(source: FileTensors, backbones: tuple[str, ...]) -> tuple[str, str]:
    """Our name of the backbone, and the file's name of its first layer."""
    if "conv1.weight" in source:
        return "caffenet", "conv1"
    for backbone, last in (("vgg19", "conv3_4"), ("vgg16", "conv3_3"), ("vgg13", "conv2_2"), ("vgg11", "conv1_1")):
        if f"{last}{backbones[0]}.weight" in source:
            return backbone, "conv1_1_bgrd" if "conv1_1_bgrd.weight" in source else "conv1_1"
    raise ConversionError(
        f"{source.file} is not an FCN: expected layers conv1_1, ... (VGG) or conv1, ... (AlexNet), found "
        + source.beginning()
    )


def _colors(
    source: FileTensors, first: str, heads: tuple[str, ...], backbones: tuple[str, ...], inputs: str | None
) -> list[Colors]:
    shape = source.shape(f"{first}{backbones[0]}.weight")
    if len(shape) != 4:
        raise ConversionError(f"{source.file}: '{first}' has weights of shape {shape}, expected (out, in, h, w)")
    channels = shape[1]
    if len(backbones) > 1:
        return [INPUTS["nyud"], INPUTS["nyud-hha"]]
    if inputs is None:
        nyud = source.shape(f"score_fr{heads[0]}.weight")[0] == 40
        inputs = "nyud-rgbd" if channels == 4 else "siftflow" if len(heads) > 1 else "nyud" if nyud else "voc"
    if inputs not in INPUTS:
        raise InputError(f"unknown inputs '{inputs}'; available are {', '.join(INPUTS)}")
    colors = INPUTS[inputs]
    if channels != len(colors.mean):
        raise ConversionError(f"{source.file} has {channels} input channels, but '{inputs}' has {len(colors.mean)}")
    return [colors]


def _options(source: FileTensors, architecture: str, backbone: str, heads: tuple[str, ...]) -> dict[str, Any]:
    """Options from a file: learned upsampling, training at once. Takes the arrays that a model does not need."""
    factors = {f"{layer}{head}.weight": n for layer, n in UPSAMPLING[architecture].items() for head in heads}
    kernels = {n: bilinear_kernel(2 * n - (backbone == "caffenet")).numpy() for n in factors.values()}
    found = [name for name in factors if name in source]
    learned = [name for name in found if not _is_bilinear(source.look(name), kernels[factors[name]])]
    for name in found:
        if factors[name] != 2 and name in learned:
            side = len(kernels[factors[name]])
            raise ConversionError(
                f"{source.file}: {name} is not the bilinear {side}×{side} kernel at the end of {architecture} on "
                f"{backbone}"
            )
        if factors[name] != 2 or not learned:
            source.drop(name)
    options: dict[str, Any] = {"learn_upsampling": True} if learned else {}
    for pool, value in _SKIPS.items():
        name = f"scale_{pool}.weight"
        if architecture == "fcn8s" and name in source:
            if not np.allclose(source.look(name), value, rtol=1e-3):
                raise ConversionError(f"{source.file}: {name} is not {value} throughout, as for nets trained at once")
            source.drop(name)
            options["at_once"] = True
    return options


def _is_bilinear(weight: NDArray[np.float32], kernel: NDArray[np.float32]) -> bool:
    """Whether a deconvolution applies a kernel to each channel by itself: dense with zeros, or in groups of one."""
    outputs, inputs = weight.shape[:2]
    if weight.shape[2:] != kernel.shape:
        return False
    shares = np.ones((outputs, 1)) if inputs == 1 else np.eye(outputs, inputs)
    return bool(np.allclose(weight, shares[..., None, None] * kernel, atol=1e-4))
