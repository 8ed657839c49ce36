"""DeepLabv3 (Chen et al., 2017, arXiv 1706.05587) and DeepLabv3+ (Chen et al., ECCV 2018, arXiv 1802.02611).

On ``xception41``, ``xception65``, ``xception71``, ``resnet50_beta`` and ``resnet101_beta`` the networks have their
released form; the heads go on any timm backbone too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid, resample
from atrous.labels import LabelSet
from atrous.models.backbones.base import NATIVE_STRIDE, Backbone
from atrous.models.backbones.deeplabv3 import BACKBONES
from atrous.models.base import SegmentationModel
from atrous.models.layers import (
    Bottleneck,
    conv3x3,
    conv_bn_relu,
    init_classifier,
    init_convolutions,
    rate_at,
    set_rate,
)
from atrous.models.options import Positive, Probability
from atrous.models.registry import register_model


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3 §3.3): what surrounds a place, seen at several rates and over the
    whole image.

    Branches, each with batch norm and ReLU, concatenated in this order: the mean of the whole map, a 1×1 convolution,
    and one 3×3 convolution for each rate; then a 1×1 projection and dropout 0.1. A branch with rates 6/12/18 at
    output stride 16 has 12/24/36 at 8.

    Args:
        inputs: channels of the feature map.
        rates: atrous rates at output stride 16; none leaves the 1×1 convolution and the image pooling.
        channels: width of each branch and of the result.
        separable: depthwise separable 3×3 branches (DeepLabv3+ §3.1).
        image_pooling: the branch that sees the whole map; DeepLabv3+ on Cityscapes is better without (§4.6).
        dropout: share of the result dropped in training.
        refine: a 3×3 convolution behind it, as torchvision's head has.
    """

    REFERENCE_STRIDE = 16

    def __init__(
        self,
        inputs: int,
        rates: Sequence[Positive] = (6, 12, 18),
        channels: Positive = 256,
        *,
        separable: bool = False,
        image_pooling: bool = True,
        dropout: Probability = 0.1,
        refine: bool = False,
    ) -> None:
        super().__init__()
        self.rates, self.channels = tuple(rates), channels
        self.pooled = conv_bn_relu(inputs, channels) if image_pooling else None
        self.pointwise = conv_bn_relu(inputs, channels)
        self.atrous = nn.ModuleList(conv3x3(inputs, channels, rate=rate, separable=separable) for rate in rates)
        self.project = conv_bn_relu((image_pooling + 1 + len(self.rates)) * channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.refine = conv3x3(channels, channels, separable=separable) if refine else None

    def follow(self, output_stride: int) -> None:
        """Scale the rates to the output stride, so that each branch keeps its field of view in pixels, as nearly as a
        integer can (:func:`atrous.models.layers.rate_at`).
        """
        for rate, branch in zip(self.rates, self.atrous, strict=True):
            set_rate(branch, rate_at(rate, self.REFERENCE_STRIDE, output_stride))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` → ``(B, channels, h, w)``."""
        branches = [self.pointwise(x), *(branch(x) for branch in self.atrous)]
        if self.pooled:
            branches.insert(0, self.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:]))
        projected: Tensor = self.dropout(self.project(torch.cat(branches, 1)))
        return self.refine(projected) if self.refine else projected


class DeepLabV3(SegmentationModel):
    """DeepLabv3: backbone, ASPP, classifier.

    Args:
        backbone: the backbone.
        label_set: the classes.
        aspp: on the backbone's last feature.
        aux: a head for training on the stride-16 features.
        width: channels of what the classifier reads, where it is not ASPP's result.
    """

    def __init__(
        self, backbone: Backbone, label_set: LabelSet, aspp: ASPP, *, aux: bool = False, width: int | None = None
    ) -> None:
        super().__init__(backbone, label_set, aux=aux)
        self.aspp = aspp
        self.classifier = nn.Conv2d(width or aspp.channels, len(label_set), 1)
        self._initialise()

    def _initialise(self) -> None:
        init_convolutions(
            module
            for name, child in self.named_children()
            if name not in ("backbone", "aux_classifier")
            for module in child.modules()
        )
        init_classifier(self.classifier)
        self._follow_output_stride()

    def _follow_output_stride(self) -> None:
        self.aspp.follow(self.output_stride)

    @property
    def embedding_channels(self) -> int:
        """Width of ASPP, or of the decoder."""
        return self.classifier.in_channels

    def _embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        return [self.aspp(features[-1])], self.backbone.grids[-1]

    def _classify(self, embedding: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(embedding[0])
        return logits


class DeepLabV3Plus(DeepLabV3):
    """DeepLabv3+: DeepLabv3's encoder, and a decoder that refines its result along low-level features (§3.1, §4.1).

    Args:
        backbone: the backbone.
        label_set: the classes.
        aspp: on the backbone's last feature.
        aux: a head for training on the stride-16 features.
        separable: the decoder's 3×3 convolutions are depthwise separable.
        strides: of the low-level features, coarse to fine; at each the result so far is refined.
        low_level_channels: to which each of them is projected.
        convs: how many convolutions refine.
        channels: their width.
        kernel: their side, 1 or 3.

    Raises:
        ValueError: no strides, strides that don't go from coarse to fine, no convolutions, or another kernel.
    """

    def __init__(
        self,
        backbone: Backbone,
        label_set: LabelSet,
        aspp: ASPP,
        *,
        aux: bool = False,
        separable: bool = False,
        strides: Sequence[int] = (4,),
        low_level_channels: Positive = 48,
        convs: int = 2,
        channels: Positive = 256,
        kernel: int = 3,
    ) -> None:
        if not strides or list(strides) != sorted(set(strides), reverse=True):
            raise InputError(f"low_level_strides go from coarse to fine, such as [4] or [8, 4], not {list(strides)}")
        if convs < 1 or kernel not in (1, 3):
            raise InputError(
                f"a decoder has 1 or more convolutions of side 1 or 3 (decoder_convs, decoder_kernel), "
                f"not {convs} of side {kernel}"
            )
        if missing := sorted(set(strides) - set(backbone.strides)):
            raise InputError(
                f"backbone '{backbone.name}' has features at strides {list(backbone.strides)}, none at {missing[0]} "
                f"for the decoder: choose among them with low_level_strides, such as [{backbone.strides[0]}], or "
                "take deeplabv3, which has no decoder"
            )
        super().__init__(backbone, label_set, aspp, aux=aux, width=channels)
        self.steps: list[tuple[int, str, str]] = []
        inputs = aspp.channels
        for stride in strides:
            suffix = "" if stride == strides[-1] else f"_{stride}"
            step = backbone.feature_at(stride), f"project_low_level{suffix}", f"decoder{suffix}"
            widths = [inputs + low_level_channels, *[channels] * convs]
            self.add_module(step[1], conv_bn_relu(backbone.channels[step[0]], low_level_channels))
            self.add_module(
                step[2],
                nn.Sequential(
                    *(
                        conv3x3(a, b, separable=separable) if kernel == 3 else conv_bn_relu(a, b)
                        for a, b in itertools.pairwise(widths)
                    )
                ),
            )
            self.steps.append(step)
            inputs = channels
        self._initialise()

    def _embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        x, place = self.aspp(features[-1]), self.backbone.grids[-1]
        for level, project, decoder in self.steps:
            detail, grid = self.get_submodule(project)(features[level]), self.backbone.grids[level]
            x = resample(x, place, grid, (detail.shape[-2], detail.shape[-1]))
            x, place = self.get_submodule(decoder)(torch.cat([x, detail], 1)), grid
        return [x], place


class DeepLabV3Cascade(SegmentationModel):
    """DeepLabv3 going deeper instead of pooling (§3.2): blocks like the backbone's last one in a row, each with twice
    the rate of the one before, then the classifier.

    The residual units of the new blocks have the form of a deeper ResNet's, and change nothing in the beginning.

    Args:
        backbone: the backbone; its last block is block4.
        label_set: the classes.
        blocks: number of the last block; 4 is the backbone alone.
        multi_grid: rates of a block's units, as multiples of the block's.
        aux: a head for training on the stride-16 features.

    Raises:
        ValueError: less than four blocks, or blocks without units.
    """

    def __init__(
        self, backbone: Backbone, label_set: LabelSet, blocks: int, multi_grid: Sequence[int], aux: bool
    ) -> None:
        if blocks < 4:
            raise InputError(f"blocks is the number of the last one, 4 (the backbone's own) or more, not {blocks}")
        if not multi_grid:
            raise InputError("multi_grid has a rate for each unit of a block, such as [1, 2, 1]: at least one, not []")
        super().__init__(backbone, label_set, aux=aux)
        self.multi_grid = tuple(multi_grid)
        self.cascade = nn.Sequential()
        for number in range(5, blocks + 1):
            units = (Bottleneck(backbone.channels[-1]) for _ in multi_grid)
            self.cascade.add_module(f"block{number}", nn.Sequential(*units))
        self.classifier = nn.Conv2d(backbone.channels[-1], len(label_set), 1)
        init_classifier(self.classifier)
        self._follow_output_stride()

    def _follow_output_stride(self) -> None:
        rate = NATIVE_STRIDE // self.output_stride
        for block in self.cascade:
            rate *= 2
            for unit, factor in zip(block.children(), self.multi_grid, strict=True):
                set_rate(unit, rate * factor)

    def _embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        return [self.cascade(features[-1])], self.backbone.grids[-1]

    def _classify(self, embedding: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(embedding[0])
        return logits


@register_model("deeplabv3", backbones=BACKBONES)
def deeplabv3(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    rates: Sequence[Positive] = (6, 12, 18),
    multi_grid: Sequence[int] = (),
    image_pooling: bool = True,
    separable: bool = False,
    channels: Positive = 256,
    dropout: Probability = 0.1,
    refine: bool = False,
    aux: bool = False,
) -> DeepLabV3:
    """DeepLabv3 (arXiv 1706.05587): ASPP over a dense backbone; ``aux`` adds a head for training.

    The paper's ResNets have ``multi_grid=(1, 2, 4)``: rates of the last three convolutions, as multiples of what the
    output stride gives them. MobileNetV2's released form has ``rates=()``. ``refine`` puts a 3×3 convolution behind
    ASPP, which the paper does not have and torchvision has.
    """
    backbone.set_multi_grid(multi_grid)
    aspp = ASPP(
        backbone.channels[-1],
        rates,
        channels,
        separable=separable,
        image_pooling=image_pooling,
        dropout=dropout,
        refine=refine,
    )
    return DeepLabV3(backbone, label_set, aspp, aux=aux)


@register_model("deeplabv3_cascade", backbones=BACKBONES)
def deeplabv3_cascade(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    blocks: int = 7,
    multi_grid: Sequence[int] = (1, 2, 1),
    aux: bool = False,
) -> DeepLabV3Cascade:
    """DeepLabv3's cascade (arXiv 1706.05587, §3.2): ``blocks`` is the number of the last one, ``multi_grid`` the rates
    of the units of each, block4 included.
    """
    backbone.set_multi_grid(multi_grid)
    return DeepLabV3Cascade(backbone, label_set, blocks, multi_grid, aux)


@register_model("deeplabv3plus", backbones=BACKBONES)
def deeplabv3plus(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    rates: Sequence[Positive] = (6, 12, 18),
    multi_grid: Sequence[int] = (),
    image_pooling: bool = True,
    separable: bool = False,
    channels: Positive = 256,
    dropout: Probability = 0.1,
    refine: bool = False,
    aux: bool = False,
    low_level_channels: Positive = 48,
    low_level_strides: Sequence[Positive] = (4,),
    decoder_convs: int = 2,
    decoder_channels: Positive | None = None,
    decoder_kernel: int = 3,
) -> DeepLabV3Plus:
    """DeepLabv3+ (arXiv 1802.02611): DeepLabv3 with a decoder along stride-4 features.

    The decoder's form is that of tables 1 and 2: low-level features projected to 48 channels, two 3×3 convolutions as
    wide as ASPP (``decoder_channels``); ``low_level_strides=(8, 4)`` refines along Conv3 before Conv2. The other
    arguments are those of :func:`deeplabv3`.
    """
    backbone.set_multi_grid(multi_grid)
    aspp = ASPP(
        backbone.channels[-1],
        rates,
        channels,
        separable=separable,
        image_pooling=image_pooling,
        dropout=dropout,
        refine=refine,
    )
    return DeepLabV3Plus(
        backbone,
        label_set,
        aspp,
        aux=aux,
        separable=separable,
        strides=low_level_strides,
        low_level_channels=low_level_channels,
        convs=decoder_convs,
        channels=decoder_channels or channels,
        kernel=decoder_kernel,
    )
