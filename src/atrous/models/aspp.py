"""Atrous spatial pyramid pooling (DeepLabv3: Chen et al., 2017, arXiv 1706.05587, §3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.models.layers import conv3x3, conv_bn_relu, rate_at, set_rate


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel atrous convolutions at several rates, plus global pooling.

    Branches, each with batch norm and ReLU, concatenated in this order: global average pooling, a 1×1 convolution, and
    one 3×3 convolution for each rate; then a 1×1 projection and dropout. (DeepLab v2's form, which sums the logits of
    atrous classifiers, is part of :class:`atrous.models.deeplab.DeepLab`.)

    Args:
        in_channels: channels of the feature map.
        rates: atrous rates at output stride 16; without any, the 1×1 convolution and the global pooling remain.
        out_channels: channels of each branch and of the result.
        separable: depthwise separable 3×3 branches (DeepLabv3+, arXiv 1802.02611, §3.1).
        image_pooling: the branch of global average pooling; DeepLabv3+ on Cityscapes is better without (§4.6).
        dropout: dropout probability.
        refine: add a 3×3 convolution behind it, as torchvision's head does.

    Attributes:
        image_mean: what the pooling branch takes for the mean of the feature map, ``(1, in_channels, 1, 1)``: on tiles
            of a large image, that of the whole image; None for the mean of the map itself.

    Example:
        >>> aspp = ASPP(320, rates=(6, 12, 18))
        >>> aspp.set_output_stride(8)  # rates 12, 24 and 36
        >>> aspp(torch.zeros(2, 320, 65, 65)).shape
        torch.Size([2, 256, 65, 65])
    """

    REFERENCE_STRIDE = 16

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        out_channels: int = 256,
        *,
        separable: bool = False,
        image_pooling: bool = True,
        dropout: float = 0.1,
        refine: bool = False,
    ) -> None:
        super().__init__()
        self.rates, self.out_channels = tuple(rates), out_channels
        self.pooled = conv_bn_relu(in_channels, out_channels) if image_pooling else None
        self.image_mean: Tensor | None
        self.register_buffer("image_mean", None, persistent=False)
        self.pointwise = conv_bn_relu(in_channels, out_channels)
        self.atrous = nn.ModuleList(
            conv3x3(in_channels, out_channels, rate=rate, separable=separable) for rate in rates
        )
        self.project = conv_bn_relu((image_pooling + 1 + len(self.rates)) * out_channels, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.refine = conv3x3(out_channels, out_channels, separable=separable) if refine else None

    def set_output_stride(self, output_stride: int) -> None:
        """Scale the rates to an output stride, so that each branch keeps its field of view in pixels, as nearly as an
        integer can (:func:`atrous.models.layers.rate_at`).
        """
        for rate, branch in zip(self.rates, self.atrous, strict=True):
            set_rate(branch, rate_at(rate, self.REFERENCE_STRIDE, output_stride))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, h, w)`` → ``(B, out_channels, h, w)``."""
        branches = [self.pointwise(x), *(branch(x) for branch in self.atrous)]
        if self.pooled:
            mean = F.adaptive_avg_pool2d(x, 1) if self.image_mean is None else self.image_mean.expand(len(x), -1, 1, 1)
            branches.insert(0, self.pooled(mean).expand(-1, -1, *x.shape[-2:]))
        projected: Tensor = self.dropout(self.project(torch.cat(branches, 1)))
        return self.refine(projected) if self.refine else projected
