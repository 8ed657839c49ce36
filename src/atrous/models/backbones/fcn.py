"""The classifiers of FCN (Long et al., CVPR 2015, arXiv 1411.4038, §4.1), as backbones in their released form.

AlexNet and VGG keep fc6 and fc7 as convolutions. Their first convolution pads by 100, so that images of any size
reach through the 7×7 (6×6) of fc6, and their pools round up, as Caffe's do. GoogLeNet has no fully connected layer but
the last; no code was released for it: here it is torchvision's (batch norm, and 3×3 where the paper has 5×5), without
its global pool.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, NATIVE_STRIDE, Backbone, larger
from atrous.models.backbones.weights import WeightsNotFoundError, check_downloads, read_weights
from atrous.models.surgery.output_stride import convolutionalize
from atrous.models.surgery.trace import trace

VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
CLASSICS = ("alexnet", "caffenet", "googlenet", *VGGS)
"""``caffenet`` is the papers' AlexNet (two groups, local response normalisation), ``alexnet`` is torchvision's."""
PADDING = 100
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
CAFFE = ((122.67892 / 255, 116.66877 / 255, 104.00699 / 255), (1 / 255,) * 3)
"""Mean and deviation (RGB, of the full range) that Caffe's weights were trained with: 0–255 less the mean colour.
Weights for BGR get the channels of their first convolution reversed when they are converted.
"""
_UNIT = ((0.5,) * 3, (0.5,) * 3)


class ClassicBackbone(Backbone):
    """A backbone of the papers' FCNs. Its form, and so its output stride of 32, is fixed.

    Args:
        name: one of ``CLASSICS``.
        in_channels: channels of the image. Beside the three colours, the first convolution takes the mean of the
            colour filters for each more (§5: NYUDv2's depth).
        pretrained: ``True`` takes torchvision's hub; a path takes a file in torchvision's names; ``False`` starts at
            random.
        output_stride: 32.

    Attributes:
        padded: whether it pads by 100, so that logits have to be cropped.

    Raises:
        InputError: another output stride.
        WeightsNotFoundError: pretrained weights that can't be found.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: bool | str | Path = False,
        output_stride: int = NATIVE_STRIDE,
    ) -> None:
        padded = name != "googlenet"
        sliding = convolutionalize(
            make_classifier(name, in_channels, pretrained), 227 if name == "caffenet" else 224, in_channels
        )
        net = _padded(sliding, name) if padded else _googlenet(sliding)
        mean, std = {"googlenet": _UNIT, "caffenet": CAFFE}.get(name, IMAGENET)
        grids = trace(net, in_channels).outputs
        super().__init__(name, in_channels=in_channels, channels=net.channels, grids=grids, mean=mean, std=std)
        self.net, self.padded = net, padded
        self.output_stride = output_stride

    def _set_output_stride(self, value: int) -> None:
        raise InputError(
            f"'{self.name}' has the form of its paper, at output stride {NATIVE_STRIDE}, not {value}; "
            "a timm backbone can be made denser"
        )

    def fitting_size(self, size: int) -> int:
        """The smallest image side, not below ``size``, that fits: any does where the backbone pads."""
        return size if self.padded else larger(size, NATIVE_STRIDE)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → a feature map ``(B, C, h, w)`` for each of ``strides``."""
        features: list[Tensor] = self.net(x)
        return features


BACKBONES = {name: partial(ClassicBackbone, name) for name in CLASSICS}
"""The backbones that FCNs have in their released form."""


class CaffeNet(nn.Module):
    """The AlexNet that FCN-AlexNet starts from: Caffe's reference network, for images of 227 × 227."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        def norm() -> nn.LocalResponseNorm:
            return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),
            nn.ReLU(inplace=True),
            pool(),
            norm(),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            pool(),
            norm(),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            pool(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, 227, 227)`` → ``(B, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class Tapped(nn.Sequential):
    """A sequence of layers that returns the maps after some of them."""

    def __init__(self, layers: Mapping[str, nn.Module], taps: Collection[str], channels: tuple[int, ...]) -> None:
        super().__init__(OrderedDict(layers))
        self.taps, self.channels = frozenset(taps), channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, C, H, W)`` → a map for each tap."""
        maps = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.taps:
                maps.append(x)
        return maps


def make_classifier(name: str, in_channels: int, pretrained: bool | str | Path) -> nn.Module:
    """A classifier of torchvision's, or ``caffenet``, for images of any number of channels.

    Args:
        name: as torchvision has it.
        in_channels: channels of the image; see :class:`ClassicBackbone`.
        pretrained: ``True`` takes torchvision's hub; a path takes a file in torchvision's names; ``False`` starts at
            random.

    Raises:
        WeightsNotFoundError: pretrained weights that can't be found.
    """
    net = _classifier(name)
    if pretrained is not False:
        _fill(net, name, pretrained)
    _widen(next(m for m in net.modules() if isinstance(m, nn.Conv2d)), in_channels)
    return net


def _classifier(name: str) -> nn.Module:
    if name == "caffenet":
        return CaffeNet()
    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    net: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return net


_KINDS = {
    nn.Conv2d: "conv",
    nn.BatchNorm2d: "bn",
    nn.ReLU: "relu",
    nn.MaxPool2d: "pool",
    nn.LocalResponseNorm: "norm",
    nn.Dropout: "drop",
}


def named_layers(net: nn.Module, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The convolutional layers of AlexNet or VGG by their names in the released models: conv1_1, ..., pool5 (AlexNet:
    conv1, ...); and the channels of each pool.
    """
    layers: dict[str, Any] = {}
    pools: dict[str, int] = {}
    block, count = 1, 0
    for layer in net.get_submodule("features").children():
        if isinstance(layer, nn.Conv2d):
            count, width = count + 1, layer.out_channels
        place = f"{block}_{count}" if name in VGGS else str(count)
        if isinstance(layer, nn.MaxPool2d):
            place = place.partition("_")[0]
            pools[f"pool{place}"] = width
            block, count = (block + 1, 0) if name in VGGS else (block, count)
        layers[f"{_KINDS[type(layer)]}{place}"] = layer
    return layers, pools


def _padded(net: nn.Module, name: str) -> Tapped:
    """Up to fc7, padded, with pools that round up."""
    layers, pools = named_layers(net, name)
    next(iter(layers.values())).padding = (PADDING, PADDING)
    for pool in pools:
        layers[pool].ceil_mode = True
    number = 5
    for layer in net.get_submodule("classifier").children():
        connected = isinstance(layer, nn.Conv2d)
        number += connected
        if number == 8 or (number == 7 and isinstance(layer, nn.Dropout)):  # the last dropout is the head's
            break
        layers[f"{'fc' if connected else _KINDS[type(layer)]}{number}"] = layer
    *taps, _ = pools
    *channels, _ = pools.values()
    return Tapped(layers, [*taps, next(reversed(layers))], (*channels, layers["fc7"].out_channels))


def _googlenet(net: nn.Module) -> Tapped:
    layers = dict(net.named_children())
    del layers["dropout"], layers["fc"]
    return Tapped(layers, ("inception3b", "inception4e", "inception5b"), (480, 832, 1024))


def _widen(conv: nn.Conv2d, in_channels: int) -> None:
    """Adapt the first convolution to other than three channels, keeping the level of its response."""
    if in_channels == conv.in_channels:
        return
    colours = conv.weight.detach()
    mean = colours.mean(1, keepdim=True)
    if in_channels > conv.in_channels:
        weight = torch.cat([colours, mean.expand(-1, in_channels - conv.in_channels, -1, -1)], 1)
    else:
        weight = mean.repeat(1, in_channels, 1, 1) * (conv.in_channels / in_channels)
    conv.weight, conv.in_channels = nn.Parameter(weight), in_channels


def _fill(net: nn.Module, name: str, pretrained: bool | str | Path) -> None:
    """Load a classifier's weights; its last layer and auxiliary heads may be others, or missing."""
    last = next(k for k, m in reversed(list(net.named_modules())) if isinstance(m, nn.Linear))
    slots = {k: v for k, v in net.state_dict().items() if not k.startswith(f"{last}.")}
    weights = _weights(name, pretrained)
    where = "torchvision's hub" if pretrained is True else str(pretrained)
    for key, slot in slots.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in weights or weights[key].shape != slot.shape:
            found = tuple(weights[key].shape) if key in weights else "missing"
            raise WeightsNotFoundError(
                f"pretrained weights for '{name}' from {where}: {key} is {found}, expected {tuple(slot.shape)}; "
                f"they must be named like those of torchvision's {type(net).__name__}"
            )
        if not weights[key].isfinite().all():
            raise WeightsNotFoundError(
                f"pretrained weights for '{name}' from {where}: {key} is not finite; torchvision's IMAGENET1K_FEATURES "
                "has no fc6 and fc7, take IMAGENET1K_V1"
            )
    net.load_state_dict({k: weights[k] for k in slots if k in weights}, strict=False)


def _weights(name: str, pretrained: bool | str | Path) -> dict[str, Tensor]:
    file = None if pretrained is True else Path(str(pretrained))
    try:
        if file:
            return read_weights(file)
        if name != "caffenet":
            url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
            if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
                check_downloads(name, url)
            found: dict[str, Tensor] = torchvision.models.get_model_weights(name).IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True
            )
            return found
    except WeightsNotFoundError:
        raise
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    else:
        reason = "no package or hub has them"
    raise WeightsNotFoundError(
        f"pretrained weights for '{name}' could not be found ({reason}). Two ways: give a file in torchvision's names "
        f"(pretrained='{name}.pth'); or, for all but caffenet, go online once, so that torchvision's hub can be "
        "reached and its answer is kept"
    )
