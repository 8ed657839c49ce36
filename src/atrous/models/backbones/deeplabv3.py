"""The backbones of DeepLabv3 and v3+ as released: modified aligned Xception, and ResNets that begin with three 3×3
convolutions ("beta").

timm has the same layers under the same names. Two things differ: where the features before a stride are taken, and,
in the ResNets, which unit has the stride: the last of a block as released, the first of the next one in timm. Weights
trained for one give other numbers with the other.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from timm.models import FeatureHookNet
from torch import Tensor, nn

from atrous.models.backbones.timm import TimmBackbone
from atrous.models.backbones.weights import timm_network

RESNETS = {"resnet50_beta": "resnet50s", "resnet101_beta": "resnet101s"}
"""The released ResNets, and timm's names of their layers and weights."""
XCEPTIONS = (
    "xception41",
    "xception41.tf_in1k",
    "xception65",
    "xception65.tf_in1k",
    "xception65.ra3_in1k",
    "xception71",
    "xception71.tf_in1k",
)
"""Names, and behind a dot timm's names of their weights: ``tf_in1k`` are TensorFlow's, trained on ImageNet."""


class ReleasedBackbone(TimmBackbone):
    """Xception or a beta ResNet, whose features are taken where DeepLabv3+ takes its low-level ones (arXiv 1802.02611,
    §4.1): the last map before the next stride, after batch norm and before any ReLU or sum. The last feature is the
    network's result.

    Args:
        name: one of ``RESNETS`` or ``XCEPTIONS``.
        in_channels: as for :class:`TimmBackbone`, like ``output_stride``.
        pretrained: weights in timm's names; timm's for the ResNets were trained with the stride in the first unit
            of a block.
        output_stride: 4, 8, 16 or 32.
    """

    def _network(self, name: str, in_channels: int, pretrained: bool | str | Path) -> nn.Module:
        classifier: Any = timm_network(RESNETS.get(name, name), in_channels, pretrained, features_only=False)
        reshape = _stride_last if name in RESNETS else _uncover
        taps = reshape(classifier)
        classifier.feature_info = [info | taps.get(info["reduction"], {}) for info in classifier.feature_info]
        # Tensors are named as in timm's own feature networks, which flatten Xception's blocks.
        net: nn.Module = FeatureHookNet(classifier, no_rewrite=False, flatten_sequential=name in XCEPTIONS)
        net.pretrained_cfg = classifier.pretrained_cfg
        return net


class _Copy(nn.Module):
    """Placed before a sum that overwrites its input, to keep the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def _stride_last(net: Any) -> dict[int, dict[str, str]]:
    """Move a ResNet's strides to the last units of its blocks; returns where the units before them end, by stride."""
    taps = {}
    for number, stride in ((1, 4), (2, 8), (3, 16)):
        units, following = getattr(net, f"layer{number}"), getattr(net, f"layer{number + 1}")[0]
        following.conv2.stride = following.downsample[0].stride = (1, 1)
        units[-1].conv2.stride = (2, 2)
        units[-1].downsample = nn.MaxPool2d(1, 2)  # the shortcut of a unit with a stride: every second position
        units[-2].drop_path = _Copy()
        taps[stride] = {"module": f"layer{number}.{len(units) - 2}.bn3"}
    return taps


def _uncover(net: Any) -> dict[int, dict[str, str]]:
    """Expose Xception's maps before strided convolutions without the following ReLU; returns their names by stride."""
    taps = {}
    for info in net.feature_info[:-1]:
        block = info["module"].removesuffix(".act3")
        net.get_submodule(info["module"]).inplace = False
        taps[info["reduction"]] = {"module": f"{block}.conv2"}
    return taps


BACKBONES = {name: partial(ReleasedBackbone, name) for name in (*RESNETS, *XCEPTIONS)}
"""The backbones that DeepLabv3 and v3+ have in their released form."""
