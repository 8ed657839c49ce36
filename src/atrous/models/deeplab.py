"""DeepLab v1 (Chen et al., ICLR 2015, arXiv 1412.7062) and v2 (Chen et al., TPAMI 2017, arXiv 1606.00915).

On ``vgg11`` to ``vgg19_bn`` and on ``resnet50``, ``resnet101`` and ``resnet152`` the networks have their published
form, at output stride 8; the heads go on any timm backbone too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import PIXELS, Grid, resample
from atrous.labels import LabelSet
from atrous.models.backbones.base import Backbone
from atrous.models.backbones.deeplab import BACKBONES, PUBLISHED_STRIDE, DeepLabBackbone, decimate
from atrous.models.backbones.fcn import VGGS
from atrous.models.base import HeadResult, SegmentationModel
from atrous.models.create import build_on
from atrous.models.layers import WideConv2d, init_convolutions, rate_at
from atrous.models.multi_scale import MultiScale
from atrous.models.options import NotNegative, Positive, Seed
from atrous.models.registry import register_model

FC_WIDTH = 1024
Side = Annotated[int, Field(ge=0, le=8192)]
"""Side that images are padded to; beyond the limit, a single one exceeds the memory of most machines."""


class DeepLab(SegmentationModel):
    """Logits that are the sum over branches of one atrous rate each (v2, §3.1): one branch is LargeFOV, four are ASPP.

    A branch is fc6 (atrous), fc7 and fc8 as the VGG networks have them, each hidden layer with ReLU and dropout 0.5; or
    a bare atrous classifier, as the ResNets have it. Layers are named as in the released models: ``fc6``, ``fc7``,
    ``fc8`` or ``fc1`` for one branch, ``fc6_1`` … ``fc8_4`` or ``fc1_c0`` … ``fc1_c3`` for four.

    Args:
        backbone: the backbone.
        label_set: the classes.
        rates: of the branches, at output stride 8; at another one each keeps its field of view in pixels, as nearly as
            an integer can (:func:`atrous.models.layers.rate_at`): 6 is 12 at stride 4, 3 at 16, 2 at 32.
        kernel: side of the atrous convolutions.
        width: channels of fc6 and fc7; 0 for bare classifiers; 1024 on VGG, 0 elsewhere when None.
        seed: chooses the filters of a pretrained VGG that fc6 and fc7 begin with.
        pad_to: as :class:`SegmentationModel` has it.
    """

    _optional = (*SegmentationModel._optional, "msc.")

    def __init__(
        self,
        backbone: Backbone,
        label_set: LabelSet,
        rates: Sequence[Positive],
        kernel: Positive,
        width: NotNegative | None,
        seed: Seed,
        pad_to: Side,
    ) -> None:
        super().__init__(backbone, label_set)
        if not rates:
            raise InputError("rates has one for each branch, such as [6, 12, 18, 24]: at least one, not []")
        self.pad_to, self.rates, self.kernel = pad_to, tuple(rates), kernel
        published = backbone.name in VGGS
        self.width = (FC_WIDTH if published else 0) if width is None else width
        self.inherits_head = published and self.width > 0
        self.dropout = nn.Dropout(0.5)
        single = len(self.rates) == 1
        self.branches: list[tuple[str, ...]] = []
        for number in range(len(self.rates)):
            if self.width:
                names = tuple(f"fc{layer}" if single else f"fc{layer}_{number + 1}" for layer in (6, 7, 8))
            else:
                names = ("fc1" if single else f"fc1_c{number}",)
            self._add_branch(names)
            self.branches.append(names)
        connected = backbone.release_connected() if isinstance(backbone, DeepLabBackbone) else None
        if connected and self.width:
            self._begin_with(*connected, seed)
        self.follow_output_stride()

    def _add_branch(self, names: Sequence[str]) -> None:
        widths = [self.backbone.channels[-1], *(self.width for _ in names[1:]), self.num_classes]
        for name, kernel, in_channels, out_channels in zip(
            names, (self.kernel, 1, 1), widths, widths[1:], strict=False
        ):
            self.add_module(name, WideConv2d(in_channels, out_channels, kernel))
        init_convolutions(self.get_submodule(name) for name in names[:-1])
        for parameter in self._parameters_of(*names):
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
        nn.init.normal_(self.get_submodule(names[-1]).weight, std=0.01)  # type: ignore[arg-type]

    def _begin_with(self, classifier_fc6: nn.Conv2d, classifier_fc7: nn.Conv2d, seed: int) -> None:
        for number, (fc6, fc7, _) in enumerate(self.branches):
            chosen = decimate(classifier_fc6, classifier_fc7, kernel=self.kernel, width=self.width, seed=seed + number)
            for slot, tensor in zip(self._parameters_of(fc6, fc7), chosen, strict=True):
                slot.data = tensor

    def _parameters_of(self, *names: str) -> Iterator[nn.Parameter]:
        return chain.from_iterable(self.get_submodule(name).parameters() for name in names)

    def inherited(self) -> Iterator[nn.Parameter]:
        """The backbone's parameters, and fc6 and fc7 on VGG, which come from its classifier (v1, §3.2)."""
        hidden = [name for names in self.branches for name in names[:-1]] if self.inherits_head else []
        return chain(super().inherited(), self._parameters_of(*hidden))

    def follow_output_stride(self) -> None:
        for rate, names in zip(self.rates, self.branches, strict=True):
            atrous = self.get_submodule(names[0])
            assert isinstance(atrous, nn.Conv2d)
            scaled = self._scaled(rate)
            atrous.dilation = (scaled, scaled)
            atrous.padding = (self._front(scaled),) * 2

    def _scaled(self, rate: int) -> int:
        return rate_at(rate, PUBLISHED_STRIDE, self.output_stride)

    def _front(self, rate: int) -> int:
        """Padding before a map; an even kernel of an odd rate needs one position more behind it."""
        return (self.kernel - 1) * rate // 2

    @property
    def embedding_channels(self) -> int:
        """Channels of fc7, over all branches; of the features where classifiers are bare."""
        return len(self.branches) * self.width or self.backbone.channels[-1]

    def embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        if not self.width:
            return super().embed(features)
        maps = []
        for rate, (fc6, fc7, _) in zip(self.rates, self.branches, strict=True):
            x = self.dropout(self._atrous(fc6, rate, features[-1]).relu_())
            maps.append(self.dropout(self.get_submodule(fc7)(x).relu_()))
        return maps, self._grid()

    def apply_head(self, features: list[Tensor]) -> HeadResult:
        return super().apply_head(features)._replace(grid=self._grid())

    def classify(self, embedding: list[Tensor]) -> Tensor:
        if self.width:
            logits = [self.get_submodule(names[-1])(x) for names, x in zip(self.branches, embedding, strict=True)]
        else:
            logits = [
                self._atrous(name, rate, embedding[0]) for rate, (name,) in zip(self.rates, self.branches, strict=True)
            ]
        return torch.stack(logits).sum(0)

    def _atrous(self, name: str, rate: int, x: Tensor) -> Tensor:
        behind = (self.kernel - 1) * self._scaled(rate) % 2
        result: Tensor = self.get_submodule(name)(F.pad(x, (0, behind, 0, behind)) if behind else x)
        return result

    def _grid(self) -> Grid:
        """Where the logits sit: with the features, except for an even kernel, which can't be centred."""
        rate = self._scaled(self.rates[0])
        return self.backbone.grids[-1].window(self.kernel, 1, self._front(rate), rate)


class DeepLabMSc(DeepLab):
    """LargeFOV with multi-scale features: the image and the maps before the last one add their logits (v1, §4.3),
    each through a two-layer perceptron and a classifier of its own, as released; a sum of logits is a classifier of
    concatenated features.

    The perceptrons' first layer takes the stride that is left to the output stride, and a rate where its map is denser
    than at output stride 8. All that is new lies in ``msc``, with the released names (``data_conv``, ``data_fc``,
    ``data_ms``, ``pool1_conv``, ...); the published training leaves the rest at what LargeFOV has learned
    (``training.only = ["msc."]`` in a recipe).
    """

    CHANNELS = 128
    sources: tuple[str, ...] = ()

    def __init__(self, backbone: Backbone, label_set: LabelSet, rate: Positive, *args: Any) -> None:
        super().__init__(backbone, label_set, (rate,), *args)
        self.sources = ("data", *(f"pool{stride.bit_length() - 1}" for stride in backbone.strides[:-1]))
        self.msc = nn.ModuleDict()
        for name, channels in zip(self.sources, (backbone.in_channels, *backbone.channels), strict=False):
            self.msc[f"{name}_conv"] = nn.Conv2d(channels, self.CHANNELS, 3, padding=1)
            self.msc[f"{name}_fc"] = nn.Conv2d(self.CHANNELS, self.CHANNELS, 1)
            self.msc[f"{name}_ms"] = nn.Conv2d(self.CHANNELS, len(label_set), 1)
        for key, parameter in self.msc.named_parameters():
            nn.init.normal_(parameter, std=(0.01 if "_ms." in key else 0.001) * key.endswith("weight"))
        self.follow_output_stride()

    def follow_output_stride(self) -> None:
        super().follow_output_stride()
        natives = (1, *self.backbone.strides)
        for name, grid, native in zip(self.sources, (PIXELS, *self.backbone.grids), natives, strict=False):
            conv = self.msc[f"{name}_conv"]
            assert isinstance(conv, nn.Conv2d)
            conv.stride = (max(1, int(self.output_stride // grid.stride)),) * 2
            rate = rate_at(1, min(native, PUBLISHED_STRIDE), int(grid.stride))
            conv.dilation = conv.padding = (rate, rate)

    def _features(self, images: Tensor) -> list[Tensor]:
        images = self._padded(images)
        return [images, *self.backbone(images)]

    def apply_head(self, features: list[Tensor]) -> HeadResult:
        result = super().apply_head(features)
        logits, target = result.logits, result.grid
        size = (logits.shape[-2], logits.shape[-1])
        for name, x, grid in zip(self.sources, features, (PIXELS, *self.backbone.grids), strict=False):
            conv = self.msc[f"{name}_conv"]
            assert isinstance(conv, nn.Conv2d)
            x = self.dropout(conv(x).relu_())
            x = self.dropout(self.msc[f"{name}_fc"](x).relu_())
            place = grid.window(3, conv.stride[0], conv.dilation[0], conv.dilation[0])
            logits = logits + resample(self.msc[f"{name}_ms"](x), place, target, size)
        return result._replace(logits=logits)


@register_model("deeplab_largefov", output_stride=PUBLISHED_STRIDE, backbones=BACKBONES)
def deeplab_largefov(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    kernel: Positive = 3,
    rate: Positive = 12,
    width: NotNegative | None = None,
    seed: Seed = 0,
    pad_to: Side = 0,
) -> DeepLab:
    """DeepLab-LargeFOV: one atrous branch, ``rate`` at output stride 8.

    v1's other forms on ``vgg16`` are ``kernel=7, rate=4``, ``kernel=4, rate=4`` and ``kernel=4, rate=8``, each with
    ``width=4096``; v2's plain ResNet is ``kernel=1``. ``width=0`` is a bare classifier, which all but VGG have when it
    is left out. On a pretrained VGG, ``seed`` chooses the filters of its classifier that fc6 and fc7 begin with.
    ``pad_to=513`` brings smaller images to the published size before they are labelled.
    """
    return DeepLab(backbone, label_set, (rate,), kernel, width, seed, pad_to)


@register_model("deeplab_msc_largefov", output_stride=PUBLISHED_STRIDE, backbones=BACKBONES)
def deeplab_msc_largefov(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    kernel: Positive = 3,
    rate: Positive = 12,
    width: NotNegative | None = None,
    seed: Seed = 0,
    pad_to: Side = 0,
) -> DeepLabMSc:
    """DeepLab-MSc-LargeFOV: with the logits of the image and of the maps before the last. The arguments are those of
    :func:`deeplab_largefov`.
    """
    return DeepLabMSc(backbone, label_set, rate, kernel, width, seed, pad_to)


@register_model("deeplab_aspp", output_stride=PUBLISHED_STRIDE, backbones=BACKBONES)
def deeplab_aspp(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    rates: Sequence[Positive] = (6, 12, 18, 24),
    width: NotNegative | None = None,
    seed: Seed = 0,
    pad_to: Side = 0,
    scales: Sequence[float] = (1,),
) -> DeepLab | MultiScale:
    """DeepLab v2: ASPP that sums the logits of 3×3 branches, one for each of ``rates`` at output stride 8. These are
    ASPP-L; ASPP-S has rates 2, 4, 8 and 12.

    ``scales`` of the image are merged by the maximum of their logits, and each is trained beside it: v2 has
    (1, 0.75, 0.5).
    ``width`` and ``pad_to`` are those of :func:`deeplab_largefov`, and ``seed`` is that of the first branch, with the
    next number for each further one.
    """
    if tuple(scales) == (1,):
        return DeepLab(backbone, label_set, rates, 3, width, seed, pad_to)
    options = {"rates": rates, "width": width, "seed": seed, "pad_to": pad_to}
    return MultiScale(build_on(backbone, "deeplab_aspp", label_set, options), scales, "max", extra_supervision=True)
