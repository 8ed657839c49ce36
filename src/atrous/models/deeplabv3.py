"""DeepLabv3 (Chen et al., 2017, arXiv 1706.05587) and DeepLabv3+ (Chen et al., ECCV 2018, arXiv 1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.labels import LabelSet
from atrous.models.backbones import Backbone
from atrous.models.base import SegmentationModel, register
from atrous.models.geometry import Grid, resample
from atrous.models.layers import conv3x3, conv_bn_relu, init_convolutions


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3 §3.3): what surrounds a place, seen at several rates and over the
    whole picture.

    Branches, each with batch norm and ReLU, concatenated in this order: the mean of the whole map, a 1×1 convolution,
    and one 3×3 convolution for each rate; then a 1×1 projection and dropout 0.1. A branch with rates 6/12/18 at
    output stride 16 has 12/24/36 at 8.

    Args:
        inputs: channels of the feature map.
        rates: atrous rates at output stride 16; none leaves the 1×1 convolution and the image pooling.
        channels: width of each branch and of the result.
        separable: depthwise separable 3×3 branches (DeepLabv3+ §3.1).
        dropout: share of the result dropped in training.
    """

    REFERENCE_STRIDE = 16

    def __init__(
        self,
        inputs: int,
        rates: Sequence[int] = (6, 12, 18),
        channels: int = 256,
        *,
        separable: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.pooled = conv_bn_relu(inputs, channels)
        self.pointwise = conv_bn_relu(inputs, channels)
        self.atrous = nn.ModuleList(conv3x3(inputs, channels, rate=rate, separable=separable) for rate in rates)
        self.project = conv_bn_relu((2 + len(self.rates)) * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def follow(self, output_stride: int) -> None:
        """Scale the rates to the output stride, so that each branch keeps its field of view in pixels."""
        for rate, branch in zip(self.rates, self.atrous, strict=True):
            scaled = max(1, rate * self.REFERENCE_STRIDE // output_stride)
            for conv in branch.modules():
                if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (scaled, scaled)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` → ``(B, channels, h, w)``."""
        whole = self.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:])
        branches = [whole, self.pointwise(x), *(branch(x) for branch in self.atrous)]
        projected: Tensor = self.dropout(self.project(torch.cat(branches, 1)))
        return projected


class DeepLabV3(SegmentationModel):
    """DeepLabv3: backbone, ASPP, classifier."""

    def __init__(
        self,
        backbone: Backbone,
        labels: LabelSet,
        rates: Sequence[int],
        separable: bool,
        channels: int,
        dropout: float,
        aux: bool,
    ) -> None:
        super().__init__(backbone, labels, aux=aux)
        self.aspp = ASPP(backbone.channels[-1], rates, channels, separable=separable, dropout=dropout)
        self.classifier = nn.Conv2d(channels, len(labels), 1)
        self._initialise()

    def _initialise(self) -> None:
        init_convolutions(
            module
            for name, child in self.named_children()
            if name not in ("backbone", "aux_classifier")
            for module in child.modules()
        )
        nn.init.trunc_normal_(self.classifier.weight, std=0.01)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)
        self._follow_output_stride()

    def _follow_output_stride(self) -> None:
        self.aspp.follow(self.output_stride)

    @property
    def embedding_channels(self) -> int:
        """Width of ASPP, and of the decoder."""
        return self.classifier.in_channels

    def _embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        return [self.aspp(features[-1])], self.backbone.grids[-1]

    def _classify(self, embedding: list[Tensor], features: list[Tensor]) -> tuple[Tensor, Grid]:  # noqa: ARG002
        return self.classifier(embedding[0]), self.backbone.grids[-1]


class DeepLabV3Plus(DeepLabV3):
    """DeepLabv3+: DeepLabv3's encoder, and a decoder that refines its result along the stride-4 features (§3.1,
    §4.1).
    """

    def __init__(
        self,
        backbone: Backbone,
        labels: LabelSet,
        rates: Sequence[int],
        separable: bool,
        channels: int,
        dropout: float,
        aux: bool,
        low_level_channels: int,
    ) -> None:
        super().__init__(backbone, labels, rates, separable, channels, dropout, aux)
        self.low_level = backbone.feature_at(4)
        self.project_low_level = conv_bn_relu(backbone.channels[self.low_level], low_level_channels)
        self.decoder = nn.Sequential(
            conv3x3(channels + low_level_channels, channels, separable=separable),
            conv3x3(channels, channels, separable=separable),
        )
        self._initialise()

    def _embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        coarse, fine = self.backbone.grids[-1], self.backbone.grids[self.low_level]
        detail = self.project_low_level(features[self.low_level])
        encoded = resample(self.aspp(features[-1]), coarse, fine, (detail.shape[-2], detail.shape[-1]))
        return [self.decoder(torch.cat([encoded, detail], 1))], fine

    def _classify(self, embedding: list[Tensor], features: list[Tensor]) -> tuple[Tensor, Grid]:  # noqa: ARG002
        return self.classifier(embedding[0]), self.backbone.grids[self.low_level]


@register("deeplabv3")
def deeplabv3(
    *,
    backbone: Backbone,
    labels: LabelSet,
    rates: Sequence[int] = (6, 12, 18),
    separable: bool = False,
    channels: int = 256,
    dropout: float = 0.1,
    aux: bool = False,
) -> DeepLabV3:
    """DeepLabv3 (arXiv 1706.05587): ASPP over a dense backbone; ``aux`` adds a head for training."""
    return DeepLabV3(backbone, labels, rates, separable, channels, dropout, aux)


@register("deeplabv3plus")
def deeplabv3plus(
    *,
    backbone: Backbone,
    labels: LabelSet,
    rates: Sequence[int] = (6, 12, 18),
    separable: bool = False,
    channels: int = 256,
    dropout: float = 0.1,
    aux: bool = False,
    low_level_channels: int = 48,
) -> DeepLabV3Plus:
    """DeepLabv3+ (arXiv 1802.02611): DeepLabv3 with a decoder along stride-4 features; ``aux`` adds a head for
    training.
    """
    return DeepLabV3Plus(backbone, labels, rates, separable, channels, dropout, aux, low_level_channels)
