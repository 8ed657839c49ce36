"""Losses over logits, at the image's own size or the network's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.labels import IGNORE
from atrous.models.base import Output

MAIN = "main"
"""The labels that outputs without labels of their own are compared with, and the output that a model predicts with."""


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross entropy over the pixels that are judged (SPEC §7.2).

    It gives a sum and what to divide it by, apart from each other, so that batches made of several parts or shared by
    several processes are averaged once, over everything.

    Args:
        class_weights: float32 ``(C,)``, of the main labels; the average is then weighted too.
        label_smoothing: share of each pixel's target that is spread evenly over the classes.
        hard_below: pixels whose probability of the true class is below this are learned from; beside them
        hard_share: this share of each image's judged pixels, those whose true class is least probable.
        resolution: ``image`` interpolates scores; ``network`` takes them as they are, and the labels of their places.
    """

    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    hard_share: float = 1.0
    hard_below: float | None = None
    resolution: Literal["image", "network"] = "image"

    def __call__(
        self, outputs: Sequence[Output], labels: Mapping[str, Tensor], easy: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Sum up the losses of the score maps of a network, each by its weight.

        Args:
            outputs: score maps, the model's prediction first; computed in float32 whatever they come in.
            labels: uint8 or int64 ``(B, H, W)``, 255 ignored: ``main``, and further ones by name. An output is
                compared with the labels of its name, or if there are none with ``main``; labels without an output are
                left aside. Which pixels are hard is decided, for each of the labels, by the first output of theirs.
            easy: moves the share of hard pixels towards all of them: 0 leaves it, 1 takes every pixel.

        Returns:
            Two float32 scalars: the sum, and the number of pixels that any of its labels judge (main labels count by
            their class weights). Both are zero where nothing is judged.
        """
        share = self.hard_share + easy * (1 - self.hard_share)
        total = size = outputs[0].logits.new_zeros((), dtype=torch.float32)
        seen: Tensor | None = None
        for name, truth in labels.items():
            mine = [output for output in outputs if (output.name if output.name in labels else MAIN) == name]
            if mine:
                weights = self.class_weights if name == MAIN else None
                loss, judged = self._compare(mine, truth.long(), weights, share)
                new = judged if seen is None else judged.masked_fill(seen, IGNORE)
                total, size = total + loss, size + _size(new, weights)
                seen = judged != IGNORE if seen is None else seen | (judged != IGNORE)
        return total, size

    def _compare(
        self, outputs: Sequence[Output], labels: Tensor, class_weights: Tensor | None, share: float
    ) -> tuple[Tensor, Tensor]:
        """The loss of outputs of the same labels, and the labels that it is of: int64 ``(B, H, W)``, else 255."""
        if self.resolution == "network":
            maps = [output.logits.float() for output in outputs]
            truths = [labels_at(output, labels) for output in outputs]
        else:
            maps = [output.at((labels.shape[-2], labels.shape[-1])) for output in outputs]
            if share < 1:
                labels = labels.masked_fill(~self._hard(maps[0].detach(), labels, share), IGNORE)
            truths = [labels] * len(outputs)
        losses = []
        for output, scores, truth in zip(outputs, maps, truths, strict=True):
            loss = output.weight * F.cross_entropy(
                scores,
                truth,
                class_weights,
                ignore_index=IGNORE,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
            if truth is not truths[0]:  # another map, another number of positions: each is averaged over its own
                loss = loss * (_size(truths[0], class_weights) / _size(truth, class_weights).clamp(min=1e-6))
            losses.append(loss)
        return torch.stack(losses).sum(), truths[0]

    def _hard(self, logits: Tensor, labels: Tensor, share: float) -> Tensor:
        """Bool ``(B, H, W)``: the pixels to learn from."""
        surprise = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten(1)
        judged = (labels != IGNORE).flatten(1)
        hardest_first = surprise.masked_fill(~judged, -1.0).argsort(dim=1, descending=True, stable=True)
        wanted = (share * judged.sum(1, keepdim=True)).ceil()
        chosen = torch.zeros_like(judged).scatter_(
            1, hardest_first, torch.arange(judged.shape[1], device=judged.device) < wanted
        )
        if self.hard_below is not None:
            chosen |= surprise > -math.log(self.hard_below)
        return chosen.view_as(labels)


def labels_at(output: Output, labels: Tensor) -> Tensor:
    """The labels at the positions of a score map: those of the pixels that they sit on (of the nearest, where they sit
    between), 255 beside the image. At a stride of 8 from the first pixel on, ``labels[:, ::8, ::8]``.

    Args:
        output: score map ``(B, C, h, w)``.
        labels: ``(B, H, W)``.

    Returns:
        ``(B, h, w)`` in the type of ``labels``.
    """
    places = []
    for positions, pixels in zip(output.logits.shape[-2:], labels.shape[-2:], strict=True):
        numbers = torch.arange(positions, dtype=torch.float64, device=labels.device)
        nearest = (numbers * output.grid.stride + output.grid.offset + 0.5).floor().long()
        places.append((nearest.clamp(0, pixels - 1), (nearest >= 0) & (nearest < pixels)))
    (rows, rows_inside), (columns, columns_inside) = places
    inside = rows_inside[:, None] & columns_inside
    return labels[:, rows][:, :, columns].masked_fill(~inside, IGNORE)


def _size(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """The number of judged positions, or the sum of their classes' weights."""
    judged = labels != IGNORE
    if class_weights is None:
        return judged.sum().float()
    # Not class_weights[labels[judged]]: to know how many they are, the host would wait for the GPU.
    return (class_weights[labels.masked_fill(~judged, 0)] * judged).sum()
