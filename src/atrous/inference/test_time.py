"""How an image becomes labels: one or several scaled and mirrored views (DeepLab §3.2, v3 §4.2), and a CRF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.unary import unary_from_probabilities, unary_from_scores
from atrous.grid import PIXELS, Grid, resample
from atrous.models.attention_to_scale import AttentionToScale
from atrous.models.base import SegmentationModel
from atrous.models.multi_scale import check_scales, scaled
from atrous.ops.labelmap.op import in_strips, scores_to_labels

Merge = Literal["probabilities", "scores", "maximum"]


@dataclass(frozen=True)
class View:
    """What a network said about one version of an image.

    Args:
        scores: float32 ``(B, C, h, w)``.
        grid: where their positions sit in the image itself (in its mirror image, if mirrored).
        mirrored: whether the network saw the image from behind.
        attention: the weights of the scales where the scores sit ``(B, S, h, w)``, of a network that has them.
    """

    scores: Tensor
    grid: Grid
    mirrored: bool = False
    attention: Tensor | None = None

    def sample(self, rows: Grid, columns: Grid, size: tuple[int, int], width: int) -> Tensor:
        """Logits ``(B, C, *size)`` at places of the image, which is ``width`` pixels wide."""
        if not self.mirrored:
            return resample(self.scores, self.grid, (rows, columns), size)
        last = columns.stride * (size[1] - 1) + columns.offset
        behind = Grid(columns.stride, width - 1 - last)
        return resample(self.scores, self.grid, (rows, behind), size).flip(-1)


@dataclass(frozen=True)
class Method:
    """Which versions of an image a network looks at, how their scores are merged, and what refines them.

    Args:
        scales: factors, 0.125 to 8; a side of ``n`` pixels becomes ``(n − 1) · scale + 1``, sampled bilinearly.
        flip: look at the mirror image too, at each scale.
        merge: the mean of the ``probabilities`` (DeepLabv3 and v3+) or of the ``scores``, or the ``maximum`` of the
            scores (DeepLab v2).
        crf: refines the merged scores at the image's own size.

    Raises:
        ValueError: no scale, one that makes images enormous or tiny, or the same one twice.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    merge: Merge = "probabilities"
    crf: DenseCRF | None = None

    def __post_init__(self) -> None:
        check_scales(self.scales)

    def __call__(self, model: SegmentationModel, image: Tensor) -> tuple[Tensor, list[View]]:
        """The class of every pixel of an image.

        Args:
            model: in eval mode.
            image: uint8 ``(1, C, H, W)``, on the model's device.

        Returns:
            Labels uint8 ``(H, W)``, and what the network said.
        """
        views = self.look(model, model.preprocess(image))
        return self.decide(views, image), views

    def look(self, model: SegmentationModel, images: Tensor) -> list[View]:
        """The network's scores of each version.

        Args:
            model: in eval mode.
            images: preprocessed images ``(B, C, H, W)``.
        """
        views = []
        for scale in self.scales:
            for mirrored in (False, True)[: 1 + self.flip]:
                seen = images.flip(-1) if mirrored else images
                shown = scaled(seen, scale).contiguous(memory_format=torch.channels_last)
                scores, grid, attention = _ask(model, shown)
                views.append(View(scores.float(), Grid(grid.stride / scale, grid.offset / scale), mirrored, attention))
        return views

    def decide(self, views: Sequence[View], image: Tensor) -> Tensor:
        """The labels ``(H, W)`` of an image by what was seen of it, refined by the CRF where there is one: its unary is
        −log of what the views say together.
        """
        size = (image.shape[-2], image.shape[-1])
        if not self.crf:
            return self._best(views, size)
        averaged = len(views) > 1 and self.merge == "probabilities"
        unary = unary_from_probabilities if averaged else unary_from_scores
        merged = self.merged(views, PIXELS, PIXELS, size, size[1])
        with torch.autocast(image.device.type, enabled=False):
            labels = self.crf.labels(image[0].permute(1, 2, 0), unary(merged[0]))
        return labels.to(torch.uint8)

    def merged(self, views: Sequence[View], rows: Grid, columns: Grid, size: tuple[int, int], width: int) -> Tensor:
        """What all views say together, at some places of an image ``width`` pixels wide: ``(B, C, *size)``, mean
        probabilities where there are several of them, else logits.
        """
        step: Callable[[Tensor, Tensor], Tensor] = torch.maximum if self.merge == "maximum" else torch.Tensor.add_
        total: Tensor | None = None
        for view in views:
            sampled = view.sample(rows, columns, size, width)
            if self.merge == "probabilities" and len(views) > 1:
                sampled = sampled.softmax(1)
            total = sampled if total is None else step(total, sampled)
        assert total is not None
        return total if self.merge == "maximum" or len(views) == 1 else total / len(views)

    def _best(self, views: Sequence[View], size: tuple[int, int]) -> Tensor:
        """The best class of every pixel; full-size scores exist for some rows at a time only."""
        first = views[0]
        if len(views) == 1:
            return scores_to_labels(first.scores, first.grid, size)[0]
        return in_strips(lambda rows, strip: self.merged(views, rows, PIXELS, strip, size[1]), first.scores, size)[0]


def _ask(model: SegmentationModel, images: Tensor) -> tuple[Tensor, Grid, Tensor | None]:
    """Scores and where they sit, and the weights of its scales where a network attends to them."""
    if isinstance(model, AttentionToScale) and model.merge == "attention":
        output, attention = model.attend(images)
        return output.logits, output.grid, attention
    return *model.coarse_logits(images), None
