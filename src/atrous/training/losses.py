"""Losses over logits at the picture's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.labels import IGNORE


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross entropy over the pixels that are judged (SPEC §7.2).

    It gives a sum and what to divide it by, apart from each other, so that batches made of several parts or shared by
    several processes are averaged once, over everything.

    Args:
        class_weights: float32 ``(C,)``; the average is then weighted too.
        label_smoothing: share of each pixel's target that is spread evenly over the classes.
        hard_below: pixels whose probability of the true class is below this are learnt from; beside them
        hard_share: this share of each picture's judged pixels, those whose true class is least probable.
    """

    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    hard_share: float = 1.0
    hard_below: float | None = None

    def __call__(
        self, logits: Sequence[Tensor], labels: Tensor, weights: Sequence[float] = (1.0,), easy: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Sum up the losses of one or more score maps.

        Args:
            logits: score maps ``(B, C, H, W)``, the model's prediction first; computed in float32 whatever they come
                in. Which pixels are hard is decided by the first.
            labels: uint8 or int64 ``(B, H, W)``, 255 ignored.
            weights: the share of each map in the sum.
            easy: moves the share of hard pixels towards all of them: 0 leaves it, 1 takes every pixel.

        Returns:
            Two float32 scalars: the sum, and the number of its pixels (or the sum of their class weights). Both are
            zero where nothing is judged.
        """
        labels = labels.long()
        share = self.hard_share + easy * (1 - self.hard_share)
        if share < 1:
            labels = labels.masked_fill(~self._hard(logits[0].detach(), labels, share), IGNORE)
        total = logits[0].new_zeros((), dtype=torch.float32)
        for weight, scores in zip(weights, logits, strict=True):
            total = total + weight * F.cross_entropy(
                scores.float(),
                labels,
                self.class_weights,
                ignore_index=IGNORE,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
        judged = labels != IGNORE
        if self.class_weights is None:
            return total, judged.sum().float()
        return total, self.class_weights[labels[judged]].sum()

    def _hard(self, logits: Tensor, labels: Tensor, share: float) -> Tensor:
        """Bool ``(B, H, W)``: the pixels to learn from."""
        surprise = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none").flatten(1)
        judged = (labels != IGNORE).flatten(1)
        hardest_first = surprise.masked_fill(~judged, -1.0).argsort(dim=1, descending=True, stable=True)
        wanted = (share * judged.sum(1, keepdim=True)).ceil()
        chosen = torch.zeros_like(judged).scatter_(
            1, hardest_first, torch.arange(judged.shape[1], device=judged.device) < wanted
        )
        if self.hard_below is not None:
            chosen |= surprise > -math.log(self.hard_below)
        return chosen.view_as(labels)
