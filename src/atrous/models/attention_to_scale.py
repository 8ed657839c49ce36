"""Attention to Scale (Chen et al., CVPR 2016, arXiv 1511.03339): learned weights of each scale per pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atrous.grid import Grids, resample
from atrous.labels import LabelSet
from atrous.models.backbones.base import Backbone
from atrous.models.base import Output, SegmentationModel
from atrous.models.create import build_on
from atrous.models.layers import full_precision
from atrous.models.multi_scale import Merge, MultiScale, Scale
from atrous.models.registry import register_model

ATTENTION_WIDTH = 512


class AttentionToScale(MultiScale):
    """A network over several scales whose logits are summed with learned weights at each position (eq. 1–2).

    The weights are a softmax over the scales, the same for all classes. A 3×3 convolution with 512 filters, ReLU and a
    1×1 convolution compute them from the inputs of the classifiers at all scales, resampled to the finest one and
    concatenated. ``model.merge = "average"`` ignores them.
    """

    merges: tuple[Merge, ...] = ("attention", "average", "max")

    def __init__(self, base: SegmentationModel, scales: Sequence[float], extra_supervision: bool) -> None:
        super().__init__(base, scales, "attention", extra_supervision)
        count = len(self.scales)
        self.attention = nn.Sequential(
            nn.Conv2d(count * base.embedding_channels, ATTENTION_WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(ATTENTION_WIDTH, count, 1),
        )
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter, std=0.01 * (parameter.ndim > 1))

    def _merged(self, seen: list[Scale]) -> Output:
        if self.merge != "attention":
            return super()._merged(seen)
        logits, grid = self._aligned(seen), seen[self.finest].output.grid
        weights = self._weights(seen, grid, (logits.shape[-2], logits.shape[-1]))
        merged = (weights.transpose(0, 1).unsqueeze(2) * logits).sum(0)
        return Output("main", merged, grid, fade=self.fade, attention=weights)

    def _weights(self, seen: list[Scale], target: Grids, size: tuple[int, int]) -> Tensor:
        """The weight of each scale on a grid of some size, float32 ``(B, S, h, w)`` in the order of ``scales``."""
        finest = seen[self.finest]
        height, width = finest.embedding[0].shape[-2:]
        maps = [resample(x, scale.grid, finest.grid, (height, width)) for scale in seen for x in scale.embedding]
        logits = self.attention(torch.cat(maps, 1))
        with full_precision(logits):
            return resample(logits.float(), finest.grid, target, size).softmax(1)


@register_model("attention_to_scale")
def attention_to_scale(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    base: str = "deeplab_largefov",
    scales: Sequence[float] = (1, 0.75, 0.5),
    merge: Merge = "attention",
    extra_supervision: bool = True,
    base_options: Mapping[str, Any] | None = None,
) -> MultiScale:
    """Attention to Scale over any ``base`` with its ``base_options``; its output stride is the base's own.

    ``merge="average"`` and ``"max"`` are built without attention; ``extra_supervision`` trains each scale's logits
    beside the merged ones.
    """
    network = build_on(backbone, base, label_set, dict(base_options or {}))
    if merge == "attention":
        return AttentionToScale(network, scales, extra_supervision)
    return MultiScale(network, scales, merge, extra_supervision)
