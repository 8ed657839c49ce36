"""What a training minimises: one or several losses over all outputs of a network."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from atrous.errors import InputError, InputTypeError
from atrous.grid import by_side
from atrous.labels import ignore_value
from atrous.models.base import Output
from atrous.training.functions import import_function
from atrous.training.losses import LOSSES, Loss, PixelSum, count_pixels

MAIN = "main"
"""Name of the main labels, with which outputs without labels of their own are compared, and of the predicted output."""


@dataclass(frozen=True)
class Term:
    """One loss of the sum.

    Args:
        function: the loss.
        options: its keyword arguments.
        weight: its factor in the sum.
    """

    function: Loss
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0

    @property
    def takes_class_weights(self) -> bool:
        """Whether the loss has a parameter ``class_weights``."""
        return "class_weights" in inspect.signature(self.function).parameters

    def __call__(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> PixelSum:
        """The loss as a sum over pixels, without the weight."""
        weights = {"class_weights": class_weights} if self.takes_class_weights else {}
        found = self.function(logits, labels, **self.options, **weights)
        if isinstance(found, PixelSum):
            return found
        if not isinstance(found, Tensor) or found.ndim:
            shape = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputTypeError(
                f"the loss {self.function.__name__} returned {shape}; expected a scalar tensor or a PixelSum"
            )
        pixels = count_pixels(labels, None, logits.shape[1])
        return PixelSum(found * pixels, pixels)


def make_terms(name: str | Mapping[str, float], options: Mapping[str, Any]) -> tuple[Term, ...]:
    """The losses of a recipe.

    Args:
        name: of a registered loss, or ``module:function``; of several, their weights by name.
        options: arguments of the loss; of several, by name.

    Raises:
        InputError: no such loss, or an option that it does not have or of another type.
    """
    if isinstance(name, str):
        return (_make_term(name, options, 1.0, "options"),)
    if not name:
        raise InputError("name: at least one loss is needed")
    if strange := [key for key in options if key not in name]:
        raise InputError(f"options.{strange[0]}: with several losses, options are given by loss: {', '.join(name)}")
    return tuple(_make_term(key, options.get(key, {}), weight, f"options.{key}") for key, weight in name.items())


def _make_term(name: str, options: Any, weight: float, setting: str) -> Term:
    function = import_function(name) if ":" in name else LOSSES.find(name)
    if not isinstance(options, Mapping):
        raise InputError(f"{setting}: Input should be a table of the arguments of {name}")
    return Term(function, _checked(function, name, options, setting), weight)


def _checked(function: Loss, name: str, options: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """Options as the loss takes them: those it has, each of its annotated type."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    known = {p.name: p for p in parameters if p.name != "class_weights" and p.kind != p.VAR_KEYWORD}
    if unknown := [key for key in options if key not in known]:
        has = f"it has: {', '.join(known)}" if known else "it has none"
        raise InputError(f"{setting}.{unknown[0]}: {name} has no such option; {has}")
    if missing := [p.name for p in known.values() if p.default is p.empty and p.name not in options]:
        raise InputError(f"{setting}.{missing[0]}: {name} needs this option")
    types = get_type_hints(function, include_extras=True)
    return {key: _of_type(types.get(key, Any), value, f"{setting}.{key}") for key, value in options.items()}


def _of_type(kind: Any, value: Any, setting: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError("; ".join(f"{setting}: {mistake['msg']}" for mistake in error.errors())) from error


@dataclass(frozen=True)
class SegmentationLoss:
    """The loss of a network's outputs, as a sum and what to divide it by.

    Sum and divisor are kept apart, so that a batch in several parts or processes is averaged once, over everything. Of
    several losses each is averaged by itself: the sums of the further ones are scaled to the divisor of the first.

    Args:
        class_weights: float32 ``(C,)``, of the main labels; the average is then weighted too.
        terms: the losses of the sum.
        hard_share: use only this share of each image's labelled pixels, those whose true class is least probable.
        hard_below: use, beside them, every pixel whose true class is less probable than this.
        resolution: ``image`` interpolates logits to the labels; ``network`` takes the labels at the logits' positions.
    """

    class_weights: Tensor | None = None
    terms: tuple[Term, ...] = make_terms("cross_entropy", {})
    hard_share: float = 1.0
    hard_below: float | None = None
    resolution: Literal["image", "network"] = "image"

    def __call__(self, outputs: Sequence[Output], labels: Mapping[str, Tensor], easy: float = 0.0) -> PixelSum:
        """Add up the losses of all outputs, each by its weight.

        Args:
            outputs: of the network, the predicted one first; losses are computed in float32.
            labels: integers ``(B, H, W)``, 255 ignored: ``main``, and auxiliary ones by name. An output is
                compared with the labels of its name, or with ``main`` if there are none; labels without an output are
                not used. Which pixels are hard is decided, for each of the labels, by the first output compared.
            easy: moves the share of hard pixels towards all pixels: 0 leaves it, 1 takes every pixel.

        Returns:
            Two float32 scalars: the sum, and the number of pixels that are not ignored in at least one of the labels
            (by their class weights for the main labels). Both are zero where everything is ignored.
        """
        share = self.hard_share + easy * (1 - self.hard_share)
        total = size = outputs[0].logits.new_zeros((), dtype=torch.float32)
        seen: Tensor | None = None
        for name, ground_truth in labels.items():
            compared = [output for output in outputs if (output.name if output.name in labels else MAIN) == name]
            if compared:
                weights = self.class_weights if name == MAIN else None
                num_classes = compared[0].logits.shape[1]
                ignore = ignore_value(num_classes)
                loss, pixels, used = self._compare(compared, ground_truth.long(), weights, share)
                if seen is not None:  # pixels that other labels have counted are not counted again
                    pixels = count_pixels(used.masked_fill(seen, ignore), weights, num_classes)
                total, size = total + loss, size + pixels
                seen = used != ignore if seen is None else seen | (used != ignore)
        return PixelSum(total, size)

    def _compare(
        self, outputs: Sequence[Output], labels: Tensor, class_weights: Tensor | None, share: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of outputs with the same labels, its divisor, and the labels used: int64 ``(B, H, W)``, else 255."""
        if self.resolution == "network":
            maps = [output.logits.float() for output in outputs]
            compared = [labels_at(output, labels) for output in outputs]
        else:
            maps = [output.at((labels.shape[-2], labels.shape[-1])) for output in outputs]
            if share < 1:
                labels = labels.masked_fill(
                    ~self._hard(maps[0].detach(), labels, share), ignore_value(maps[0].shape[1])
                )
            compared = [labels] * len(outputs)
        losses, divisor = [], None
        for output, logits, ground_truth in zip(outputs, maps, compared, strict=True):
            for term in self.terms:
                total, pixels = term(logits, ground_truth, class_weights)
                loss = output.weight * term.weight * total
                if divisor is None:
                    divisor = pixels
                else:  # another map has another number of positions: each is averaged over its own
                    loss = loss * (divisor / pixels.clamp(min=1e-6))
                losses.append(loss)
        assert divisor is not None
        return torch.stack(losses).sum(), divisor, compared[0]

    def _hard(self, logits: Tensor, labels: Tensor, share: float) -> Tensor:
        """Bool ``(B, H, W)``: the pixels to learn from."""
        ignore = ignore_value(logits.shape[1])
        surprise = F.cross_entropy(logits, labels, ignore_index=ignore, reduction="none").flatten(1)
        labelled = (labels != ignore).flatten(1)
        hardest_first = surprise.masked_fill(~labelled, -1.0).argsort(dim=1, descending=True, stable=True)
        wanted = (share * labelled.sum(1, keepdim=True)).ceil()
        chosen = torch.zeros_like(labelled).scatter_(
            1, hardest_first, torch.arange(labelled.shape[1], device=labelled.device) < wanted
        )
        if self.hard_below is not None:
            chosen |= surprise > -math.log(self.hard_below)
        return chosen.view_as(labels)


def labels_at(output: Output, labels: Tensor) -> Tensor:
    """The labels at the positions of an output: of the pixels there, or the nearest if between pixels; 255 outside the
    image. For a grid of stride 8 from the first pixel on, ``labels[:, ::8, ::8]``.

    Args:
        output: with logits ``(B, C, h, w)``.
        labels: ``(B, H, W)``.

    Returns:
        ``(B, h, w)`` in the dtype of ``labels``.
    """
    places = []
    double = "cpu" if labels.device.type == "mps" else labels.device  # MPS has no float64
    sides = zip(by_side(output.grid), output.logits.shape[-2:], labels.shape[-2:], strict=True)
    for grid, positions, pixels in sides:
        numbers = torch.arange(positions, dtype=torch.float64, device=double)
        nearest = (numbers * grid.stride + grid.offset + 0.5).floor().long().to(labels.device)
        places.append((nearest.clamp(0, pixels - 1), (nearest >= 0) & (nearest < pixels)))
    (rows, rows_inside), (columns, columns_inside) = places
    inside = rows_inside[:, None] & columns_inside
    return labels[:, rows][:, :, columns].masked_fill(~inside, ignore_value(output.logits.shape[1]))
