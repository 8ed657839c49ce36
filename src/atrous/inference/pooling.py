"""Image pooling on tiles: a network that looks at the mean of its whole feature map gets one mean for all tiles."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from atrous.data.files.rasters import Span
from atrous.inference.tiles import ReadWindow, image_tensor
from atrous.models.aspp import ASPP
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import structural_copy

SAMPLED = 16
"""Tiles that the mean is taken over: all of them where there are no more, else as many, spread evenly."""


def with_image_means(
    model: SegmentationModel, read: ReadWindow, rows: list[Span], columns: list[Span], device: torch.device
) -> SegmentationModel:
    """A copy of a model, over the same weights, whose image pooling gives what it would give for the whole image, as
    nearly as a sample of the tiles tells; the model itself if it does not pool.

    Args:
        model: in eval mode, on the device; its image pooling is that of :class:`~atrous.models.aspp.ASPP`.
        read: reads windows of the image.
        rows: of the tiles, from top to bottom.
        columns: the same, from left to right.
        device: of the model.

    Returns:
        The copy. (A model that saw one tile alone needs none.)
    """
    if len(rows) * len(columns) == 1 or not any(_pooling(model)):
        return model
    fixed = structural_copy(model).eval()
    fixed.label_set = model.label_set
    sums = [_Sum(layer) for layer in _pooling(fixed)]
    tiles = list(product(rows, columns))
    with torch.inference_mode():
        for number in np.linspace(0, len(tiles) - 1, min(SAMPLED, len(tiles))).round().astype(int):
            image = image_tensor(read(*tiles[number]), device)
            fixed.coarse_logits(fixed.preprocess(image).to(next(fixed.parameters()).dtype))
    for pooled in sums:
        pooled.finish()
    return fixed


def _pooling(model: nn.Module) -> list[ASPP]:
    return [layer for layer in model.modules() if isinstance(layer, ASPP) and layer.pooled]


class _Sum:
    """Adds up what a layer reads, over all positions of all tiles."""

    def __init__(self, layer: ASPP) -> None:
        self.layer, self.total, self.count = layer, torch.zeros(1), 0
        self.handle = layer.register_forward_pre_hook(self._add)

    def _add(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        self.total = self.total + x.double().sum((0, 2, 3))
        self.count += x.shape[0] * x.shape[2] * x.shape[3]
        self.dtype = x.dtype

    def finish(self) -> None:
        self.handle.remove()
        self.layer.image_mean = (self.total / self.count).to(self.dtype)[None, :, None, None]
