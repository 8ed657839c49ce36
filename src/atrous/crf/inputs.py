"""Reading what a dense CRF is given: images and energies as batches of tensors that fit each other."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.unary import check_finite
from atrous.errors import InputError

_SAMPLE = 64
"""How many pixels are looked at for energies that are really probabilities."""


def read_unary(unary: NDArray[Any] | Tensor, spatial_dims: int) -> Tensor:
    """Energies as a batch ``(B, C, *size)``.

    Raises:
        ValueError: they have no such shape, are no floating numbers, or are not all finite.
    """
    energies = unary if isinstance(unary, Tensor) else torch.from_numpy(np.ascontiguousarray(unary))
    shape = f"(C{', H, W' if spatial_dims == 2 else ', …'}), {1 + spatial_dims} axes, or a batch of such"
    if energies.ndim not in (1 + spatial_dims, 2 + spatial_dims):
        flat = energies.ndim == spatial_dims == 2  # as pydensecrf takes it
        hint = "; a flat one: unary.reshape(C, H, W)" if flat else ""
        raise InputError(f"unary must be {shape}, not {tuple(energies.shape)}{hint}")
    if not energies.is_floating_point():
        raise InputError(
            f"unary must hold floating energies, not {energies.dtype}; labels go through unary_from_labels"
        )
    if energies.ndim == 1 + spatial_dims:
        energies = energies[None]
    if 0 in energies.shape:
        raise InputError(f"unary must be {shape}, with at least one class and pixel, not {tuple(unary.shape)}")
    check_finite("unary", energies)
    _warn_of_probabilities(energies)
    return energies


def read_images(image: NDArray[Any] | Tensor | None, unary: Tensor, *, batched: bool) -> list[Tensor | None]:
    """For each unary of a batch its image ``(*size, channels)``, of the dtype and on the device it was given.

    Args:
        image: ``(*size, channels)``, uint8 or floating; with a batch in front where ``batched``; or None.
        unary: ``(B, C, *size)``.
        batched: whether the unary was given as a batch.

    Raises:
        ValueError: the image is of another size than the unary, or is not finite.
    """
    if image is None:
        return [None] * len(unary)
    images = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
    size = tuple(unary.shape[2:])
    expected = (*unary.shape[:1], *size) if batched else size
    if images.ndim != len(expected) + 1 or tuple(images.shape[:-1]) != expected:
        shape = tuple(unary.shape[0 if batched else 1 :])
        swapped = tuple(images.shape[:-1]) == tuple(unary.shape[:1] * batched + unary.shape[1:-1])
        if swapped and unary.shape[-1] < unary.shape[1]:  # else it may be the image whose channels come first
            raise InputError(f"the unary is {shape}, as if its classes came last; they come first, before the height")
        raise InputError(_misfit(tuple(images.shape), expected))
    if images.is_floating_point():
        check_finite("image", images)
        if images.shape[-1] == 3 and images.numel() and 0 < float(images.max()) <= 1:
            warnings.warn("the image's values are at most 1; colours are expected to be 0–255", stacklevel=4)
    elif images.dtype != torch.uint8:
        raise InputError(f"image must be uint8 or floating, not {images.dtype}")
    images = images.detach()
    return list(images if batched else images[None])


def _misfit(image: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to say of an image whose shape does not go with the unary's."""
    say = f"image is {image}, but the unary asks for {expected} and channels behind"
    if image == expected:
        return f"{say}: a grey image needs an axis of one channel, image[..., None]"
    if len(image) != len(expected) + 1:
        return f"{say}: {'an image for each unary of the batch' if len(image) == len(expected) else 'as many axes'}"
    if image[-len(expected) :] == expected:
        return f"{say}: channels come last (image.transpose or permute)"
    *outer, height, width = expected
    if image[:-1] == (*outer, width, height):
        return f"{say}: did you swap height and width? Height comes first in both"
    return f"{say}: resize the scores to the image's size, not the image"


def _warn_of_probabilities(unary: Tensor) -> None:
    """Energies that sum to 1 in all of some pixels are surely probabilities."""
    flat = unary.detach().flatten(2)
    sample = flat[:, :, :: max(1, flat.shape[2] // _SAMPLE)]
    # Together: from a GPU, each number that is asked for alone is waited for.
    facts = (sample != sample[:, :1]).any(), sample.min(), (sample.sum(1) - 1).abs().max()
    varied, least, off = torch.stack([fact.float() for fact in facts]).tolist()
    if varied and least >= 0 and off < 1e-3:
        warnings.warn(
            "the unary sums to 1 in each pixel: these look like probabilities, where energies are expected; use "
            "unary_from_probabilities",
            stacklevel=4,
        )
