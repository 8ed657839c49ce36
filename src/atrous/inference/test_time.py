"""Test-time inference: from an image to labels, over one or several scaled and mirrored views (DeepLab, arXiv
1606.00915, §3.2; DeepLabv3, arXiv 1706.05587, §4.2), with or without a dense CRF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.unary import unary_from_logits, unary_from_probabilities
from atrous.errors import InputError
from atrous.grid import PIXELS, Grid, Grids, resample, unscaled
from atrous.models.base import Output, SegmentationModel
from atrous.models.multi_scale import MultiScale, check_scales, scaled
from atrous.ops.labelmap.op import label_dtype, labels_in_strips, logits_to_labels, strip_rows

Merge = Literal["probabilities", "average", "max"]
"""How several views are merged: mean of the class probabilities, mean of the logits, or maximum of the logits. The
words mean the same where a multi-scale network merges its own scales (:class:`atrous.models.multi_scale.MultiScale`).
"""


class Network(Protocol):
    """What inference needs of a model: a :class:`SegmentationModel` has it, and so has a
    :class:`~atrous.inference.prepare.PreparedModel`.
    """

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 ``(B, C, H, W)`` → what the network takes."""

    def main_output(self, images: Tensor) -> Output:
        """The logits that it predicts with."""

    def outputs(self, images: Tensor) -> list[Output]:
        """Those and the logits of its auxiliary heads."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its parameters."""


@dataclass(frozen=True)
class View:
    """What a network computed from one version of an image.

    Args:
        logits: float32 ``(B, C, h, w)``.
        grid: where their positions sit in the image itself (in its mirror image, if mirrored); two grids where rows
            and columns differ.
        mirrored: whether the network saw the image mirrored left to right.
        attention: the weights of the network's own scales ``(B, S, h, w)``, if it attends to scales.
    """

    logits: Tensor
    grid: Grids
    mirrored: bool = False
    attention: Tensor | None = None

    def sample(self, rows: Grid, columns: Grid, size: tuple[int, int], width: int) -> Tensor:
        """Sample the logits at positions of the image, which is ``width`` pixels wide: ``(B, C, *size)``."""
        if not self.mirrored:
            return resample(self.logits, self.grid, (rows, columns), size)
        last = columns.stride * (size[1] - 1) + columns.offset
        behind = Grid(columns.stride, width - 1 - last)
        return resample(self.logits, self.grid, (rows, behind), size).flip(-1)


@dataclass(frozen=True)
class Inference:
    """How an image becomes labels: which views of it the network sees, how they are merged, and what refines them.

    Args:
        scales: factors, 0.125 to 8; a side of ``n`` pixels becomes ``(n − 1) · scale + 1``, sampled bilinearly.
        flip: add the mirror image at each scale.
        merge: how several views are merged: the mean of the ``probabilities`` (DeepLabv3 and v3+), the ``average`` of
            the logits, or their ``max`` (DeepLab v2).
        crf: refines the merged result at the image's own size.

    Raises:
        InputError: an unknown merge, no scale, a scale out of range, or the same scale twice.

    Example:
        >>> import atrous
        >>> atrous.Inference(scales=(0.75, 1.0), flip=True).single_view
        False
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    merge: Merge = "probabilities"
    crf: DenseCRF | None = None

    def __post_init__(self) -> None:
        check_scales(self.scales)
        if self.merge not in get_args(Merge):
            raise InputError(f"views are merged by {', '.join(get_args(Merge))}, not '{self.merge}'")

    @property
    def single_view(self) -> bool:
        """Whether the network runs once per image, so that there is nothing to merge."""
        return len(self.scales) == 1 and not self.flip

    @property
    def averages_probabilities(self) -> bool:
        """Whether merged views are class probabilities; otherwise they are logits."""
        return self.merge == "probabilities" and not self.single_view

    def __call__(self, model: Network, image: Tensor) -> tuple[Tensor, list[View]]:
        """Find the class of every pixel of an image.

        Args:
            model: in eval mode.
            image: uint8 ``(1, C, H, W)``, on the model's device.

        Returns:
            Labels ``(H, W)``, uint8 or uint16, and the views they were made from.
        """
        views = self.views(model, model.preprocess(image))
        return self.labels(views, image), views

    def label_heads(self, model: Network, image: Tensor, heads: Sequence[str] = ()) -> dict[str, Tensor]:
        """Find the labels of an image for several heads of a network, which runs once per view.

        Args:
            model: in eval mode.
            image: uint8 ``(1, C, H, W)``, on the model's device.
            heads: names of heads beside ``main``. The views of a head are merged like those of ``main``; the CRF
                refines ``main`` alone.

        Returns:
            Labels ``(H, W)``, uint8 or uint16 by the name of the head, ``main`` first.
        """
        views = self._views_by_head(model, model.preprocess(image), heads)
        size = (image.shape[-2], image.shape[-1])
        found = {head: self._argmax(views[head], size)[0] for head in heads}
        return {"main": self.labels(views["main"], image), **found}

    def batch_labels(self, model: Network, images: Tensor) -> Tensor:
        """Find the labels of images of one size, which run through the network together.

        Args:
            model: in eval mode.
            images: uint8 ``(B, C, H, W)``, on the model's device.

        Returns:
            uint8 or uint16 ``(B, H, W)``.
        """
        if self.crf:
            return torch.stack([self(model, image[None])[0] for image in images])
        views = self.views(model, model.preprocess(images))
        return self._argmax(views, (images.shape[-2], images.shape[-1]))

    def views(self, model: Network, images: Tensor) -> list[View]:
        """Run the network on each version of some images.

        Args:
            model: in eval mode.
            images: preprocessed images ``(B, C, H, W)``.
        """
        return self._views_by_head(model, images, ())["main"]

    def _views_by_head(self, model: Network, images: Tensor, heads: Sequence[str]) -> dict[str, list[View]]:
        views: dict[str, list[View]] = {name: [] for name in ("main", *heads)}
        for scale in self.scales:
            for mirrored in (False, True)[: 1 + self.flip]:
                seen = images.flip(-1) if mirrored else images
                shown = scaled(seen, scale).contiguous(memory_format=torch.channels_last)
                for name, view in _run(model, shown, heads).items():
                    views[name].append(replace(view, grid=unscaled(view.grid, scale), mirrored=mirrored))
        return views

    def labels(self, views: Sequence[View], image: Tensor) -> Tensor:
        """Merge views into labels, refined by the CRF if there is one; its unary is −log of the merged probabilities.

        Args:
            views: of this image alone.
            image: uint8 ``(1, C, H, W)``.

        Returns:
            Labels ``(H, W)``, uint8 or uint16.

        Raises:
            InputError: some logits are not finite.
        """
        size = (image.shape[-2], image.shape[-1])
        if not self.crf:
            return self._argmax(views, size)[0]
        check_finite(views)
        if image.dtype != torch.uint8:
            raise InputError(f"a CRF compares colours of 8 bits, and these images are {image.dtype}: leave it out")
        unary = unary_from_probabilities if self.averages_probabilities else unary_from_logits
        merged = self.merged(views, PIXELS, PIXELS, size, size[1])
        with torch.autocast(image.device.type, enabled=False):
            labels = self.crf.labels(image[0].permute(1, 2, 0), unary(merged[0]))
        return labels.to(label_dtype(merged))

    def merged(self, views: Sequence[View], rows: Grid, columns: Grid, size: tuple[int, int], width: int) -> Tensor:
        """Merge views at positions of an image ``width`` pixels wide.

        Returns:
            ``(B, C, *size)``: class probabilities if :attr:`averages_probabilities`, else logits.
        """
        step: Callable[[Tensor, Tensor], Tensor] = torch.maximum if self.merge == "max" else torch.Tensor.add_
        total: Tensor | None = None
        for view in views:
            sampled = view.sample(rows, columns, size, width)
            if self.averages_probabilities:
                sampled = sampled.softmax(1)
            total = sampled if total is None else step(total, sampled)
        assert total is not None
        return total if self.merge == "max" or len(views) == 1 else total / len(views)

    def probability_strips(self, views: Sequence[View], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
        """Compute class probabilities at every pixel, before any CRF, some rows at a time.

        Args:
            views: of one image alone.
            size: height and width of the image.

        Yields:
            The first row of the strip, and its probabilities, float32 ``(C, rows, W)``.
        """
        check_finite(views)
        height, width = size
        rows = strip_rows(views[0].logits, width)
        for start in range(0, height, rows):
            strip = self.merged(views, Grid(1, start), PIXELS, (min(rows, height - start), width), width)[0]
            yield start, strip if self.averages_probabilities else strip.softmax(0)

    def _argmax(self, views: Sequence[View], size: tuple[int, int]) -> Tensor:
        """The best class of every pixel ``(B, H, W)``; only some rows of full-size logits exist at a time."""
        check_finite(views)
        first = views[0]
        if len(views) == 1:
            return logits_to_labels(first.logits, first.grid, size)
        return labels_in_strips(
            lambda rows, strip: self.merged(views, rows, PIXELS, strip, size[1]), first.logits, size
        )


def with_merge(model: SegmentationModel, inference: Inference, merge: str) -> Inference:
    """Apply a merge where there is something to merge.

    A network with several scales of its own takes ``attention``, ``average`` or ``max`` as its own merge
    (``model.merge`` is set). Otherwise the merge applies to the test-time views.

    Args:
        model: the network that the inference is for.
        inference: its views.
        merge: ``attention``, ``average``, ``max`` or ``probabilities``.

    Returns:
        The inference to use, which is another one if its views take the merge.

    Raises:
        InputError: nothing is merged, or not in this way.
    """
    own: tuple[str, ...] = ()
    if isinstance(model, MultiScale) and len(model.scales) > 1:
        own = model.merges
        if merge in own:
            model.merge = merge
            return inference
    choices = [] if inference.single_view else [choice for choice in get_args(Merge) if choice not in own]
    if merge in choices:
        return replace(inference, merge=merge)  # type: ignore[arg-type]
    if not (own or choices):
        raise InputError(f"there is nothing to merge: {model.name} runs once per image; add test-time scales or flip")
    raise InputError(f"merge is one of {', '.join([*own, *choices])} for {model.name} here, not '{merge}'")


def _run(model: Network, images: Tensor, heads: Sequence[str]) -> dict[str, View]:
    """Run the network once: the view of each head, in pixels of its input."""
    images = images.to(next(model.parameters()).dtype)  # a network may have been made .half() or .double()
    outputs = model.outputs(images) if heads else [model.main_output(images)]
    return {
        output.name: View(output.logits.float(), output.grid, attention=output.attention)
        for output in outputs
        if output.name in ("main", *heads)
    }


def check_finite(views: Sequence[View]) -> None:
    """Refuse logits that are not finite: an argmax over NaN is class 0.

    Raises:
        InputError: some are infinite or not a number.
    """
    for view in views:
        if not torch.isfinite(view.logits).all():
            stray = int((~view.logits.isfinite()).sum())
            raise InputError(
                f"{stray:,} of the network's {view.logits.numel():,} logits are not finite, so that its labels would "
                "mean nothing: its weights are ruined (train or download it again), or the precision is too low for "
                "this image (leave out --precision bfloat16, call model.float())"
            )
