"""Losses between logits and labels, and the registry that recipes find them in.

Each takes float logits ``(B, C, H, W)`` and int64 labels ``(B, H, W)`` in which 255 is ignored (65535 beside
more than 255 classes), and returns a scalar
(the mean over what it was given) or a :class:`PixelSum`. Where every pixel is ignored, value and gradient are exactly
zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from atrous.labels import ignore_value
from atrous.registry import Registry

__all__ = ["PixelSum", "boundary", "cross_entropy", "dice", "focal", "lovasz_softmax", "register_loss"]


class PixelSum(NamedTuple):
    """A loss as a sum over pixels, and what to divide it by.

    Kept apart, several parts of a batch (``training.accumulate``) and several processes are averaged once, over all
    pixels, so that their number changes nothing.

    Args:
        total: scalar, the sum over all pixels that are not ignored.
        pixels: scalar, the number of these pixels, or the sum of their class weights.
    """

    total: Tensor
    pixels: Tensor

    def mean(self) -> Tensor:
        """The average loss; 0 where every pixel is ignored."""
        return self.total / self.pixels.clamp(min=1e-6)


Loss = Callable[..., Tensor | PixelSum]
AnyLoss = TypeVar("AnyLoss", bound=Loss)
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LOSSES: Registry[Loss] = Registry("loss", "atrous.losses")
"""Every loss that a recipe can name."""


def register_loss(name: str) -> Callable[[AnyLoss], AnyLoss]:
    """Make a loss known to recipes, as ``loss.name``.

    The decorated function takes logits and labels, and its options by keyword; the annotations of these are checked
    against ``loss.options``. If it has a parameter ``class_weights``, it gets the recipe's: float32 ``(C,)`` or None. A
    scalar that it returns counts, in a batch of several parts or processes, by the number of pixels that are not
    ignored. A package can list it as an entry point of the same name in the group ``atrous.losses``. ::

        @atrous.register_loss("mean_error")
        def mean_error(logits: Tensor, labels: Tensor, *, power: float = 1.0) -> Tensor:
            labelled = labels != 255
            true = logits.softmax(1).gather(1, labels.masked_fill(~labelled, 0)[:, None])[:, 0]
            return ((1 - true) ** power * labelled).sum() / labelled.sum().clamp(min=1)

    Args:
        name: of the loss.

    Raises:
        InputError: another loss has the name.

    Example:
        >>> import atrous
        >>> @atrous.register_loss("mean_error_of_example")
        ... def mean_error(logits, labels):
        ...     valid = labels != 255
        ...     true = logits.softmax(1).gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
        ...     return ((1 - true) * valid).sum() / valid.sum().clamp(min=1)
    """

    def enter(function: AnyLoss) -> AnyLoss:
        LOSSES.add(name, function, function)
        return function

    return enter


@register_loss("cross_entropy")
def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> PixelSum:
    """Softmax cross entropy.

    Args:
        logits: ``(B, C, H, W)``.
        labels: int64 ``(B, H, W)``, 255 ignored.
        class_weights: ``(C,)``; the average is weighted too.
        label_smoothing: share of each pixel's target that is spread evenly over the classes.
    """
    ignore = ignore_value(logits.shape[1])
    total = F.cross_entropy(
        logits, labels, class_weights, ignore_index=ignore, reduction="sum", label_smoothing=label_smoothing
    )
    return PixelSum(total, count_pixels(labels, class_weights, logits.shape[1]))


@register_loss("focal")
def focal(logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None, gamma: NotNegative = 2.0) -> PixelSum:
    """Focal loss ``−(1 − p)^γ log p``, p being the probability of the true class (Lin et al. 2017, arXiv 1708.02002,
    §3.2).

    Args:
        logits: ``(B, C, H, W)``.
        labels: int64 ``(B, H, W)``, 255 ignored.
        class_weights: ``(C,)``, the paper's α; the average is weighted too.
        gamma: focusing parameter; 0 is cross entropy.
    """
    labelled = labels != ignore_value(logits.shape[1])
    target = labels.masked_fill(~labelled, 0)
    log_p = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    # Clamped because a power below 1 has an infinite slope at 0.
    losses = -((-torch.expm1(log_p)).clamp(min=1e-12) ** gamma) * log_p * labelled
    if class_weights is not None:
        losses = losses * class_weights[target]
    return PixelSum(losses.sum(), count_pixels(labels, class_weights, logits.shape[1]))


@register_loss("dice")
def dice(logits: Tensor, labels: Tensor, *, smooth: NotNegative = 1.0) -> Tensor:
    """Soft Dice loss: 1 minus the mean, over the classes in the labels, of ``(2 Σpt + s) / (Σp + Σt + s)``
    (after Milletari et al. 2016, arXiv 1606.04797, §3, without squares).

    The sums run over all pixels that are not ignored of all images given, so this is not a sum over pixels: of a batch
    in several parts or processes each has a loss of its own, and their average, weighted by pixels, is minimised.

    Args:
        logits: ``(B, C, H, W)``; p are their softmax.
        labels: int64 ``(B, H, W)``, 255 ignored.
        smooth: s, in pixels; with 0 a class of few pixels has the steepest loss.

    Returns:
        Scalar, 0 to 1.
    """
    one_hot = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)[:, None, None]
    probabilities = logits.softmax(1) * (labels != ignore_value(logits.shape[1]))[:, None]
    dims = (0, 2, 3)
    overlap, size = (probabilities * one_hot).sum(dims), probabilities.sum(dims) + one_hot.sum(dims)
    score = (2 * overlap + smooth) / (size + smooth).clamp(min=1e-12)
    present = one_hot.any(3).any(2).any(0)
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)


@register_loss("lovasz_softmax")
def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász-softmax, a surrogate of 1 − mean IoU over the classes in the labels (Berman et al. 2018, arXiv 1705.08790,
    §3.1 and algorithm 1).

    The IoU is of all images given, so this is not a sum over pixels: of a batch in several parts or processes each has
    a loss of its own, and their average, weighted by pixels, is minimised. Errors are sorted once for each class in
    the labels; to know which these are, the host waits for a GPU.

    Args:
        logits: ``(B, C, H, W)``.
        labels: int64 ``(B, H, W)``, 255 ignored.

    Returns:
        Scalar, 0 to 1.
    """
    labelled = labels != ignore_value(logits.shape[1])
    probabilities, target = logits.softmax(1).movedim(1, -1)[labelled], labels[labelled]
    if not len(target):
        return probabilities.sum()
    losses = []
    for label in torch.unique(target):
        of_class = (target == label).to(probabilities.dtype)
        errors = (of_class - probabilities[:, label]).abs()
        errors, order = errors.sort(descending=True)
        losses.append(errors @ _jaccard_steps(of_class[order]))
    return torch.stack(losses).mean()


def _jaccard_steps(of_class: Tensor) -> Tensor:
    """How much the Jaccard loss of a class grows with each pixel that becomes an error, ``(N,)``.

    Args:
        of_class: 1 where a pixel is of the class, else 0; pixels in the order of their errors.
    """
    intersection = of_class.sum() - of_class.cumsum(0)
    union = of_class.sum() + (1 - of_class).cumsum(0)
    return (1 - intersection / union).diff(prepend=of_class.new_zeros(1))


@register_loss("boundary")
def boundary(logits: Tensor, labels: Tensor) -> PixelSum:
    """Boundary loss: the sum over classes of each probability times the signed distance to the class's boundary
    (Kervadec et al. 2019, arXiv 1812.07032, §2).

    Distances, in pixels, are negative inside a class, and measured between pixels that are not ignored; a class that an
    image does not have, or that fills it, adds nothing. The loss can be negative and has no minimum of its own over all
    pixels of an image: use it beside another, with a small weight (``{ cross_entropy = 1.0, boundary = 0.01 }``).
    Distances are computed on the CPU, so the host waits for a GPU.

    Args:
        logits: ``(B, C, H, W)``.
        labels: int64 ``(B, H, W)``, 255 ignored.
    """
    distances = np.stack([_signed_distances(mask, logits.shape[1]) for mask in labels.cpu().numpy()])
    weights = torch.from_numpy(distances).to(logits)
    return PixelSum((logits.softmax(1) * weights).sum(), count_pixels(labels, None, logits.shape[1]))


def _signed_distances(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """The signed distance to the boundary of each class, ``(C, H, W)``; 0 for ignored pixels."""
    labelled = labels != ignore_value(num_classes)
    distances = np.zeros((num_classes, *labels.shape), np.float32)
    for label in np.unique(labels[labelled]):
        inside = labels == label
        outside = labelled & ~inside
        if outside.any():
            distances[label] = np.where(inside, 1 - _distance_to(outside), _distance_to(inside)) * labelled
    return distances


def _distance_to(pixels: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The Euclidean distance of every pixel to the nearest of some."""
    return np.asarray(cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def count_pixels(labels: Tensor, class_weights: Tensor | None, num_classes: int) -> Tensor:
    """The number of pixels that are not ignored, or the sum of their class weights; a float32 scalar."""
    labelled = labels != ignore_value(num_classes)
    if class_weights is None:
        return labelled.sum().float()
    # Not class_weights[labels[labelled]]: to know how many they are, the host would wait for the GPU.
    return (class_weights[labels.masked_fill(~labelled, 0)] * labelled).sum()
