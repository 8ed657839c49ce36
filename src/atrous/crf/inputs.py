"""The inputs of a dense CRF, numpy or torch, checked and as tensors: images and energies in matching batches."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError, InputTypeError
from atrous.labels import IGNORE

Array = TypeVar("Array", NDArray[Any], Tensor)

LARGEST = 1e30
"""The largest energy or weight, so that their sums and products stay finite in float32."""
_SAMPLE = 64
"""Number of pixels that are checked for probabilities in place of energies."""


def as_tensor(values: NDArray[Any] | Tensor) -> Tensor:
    """The values as a tensor, sharing memory where possible.

    Raises:
        InputTypeError: neither an array nor a tensor, or not of real numbers.
    """
    if isinstance(values, Tensor) and not values.is_complex():
        return values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        what = f"{values.dtype}" if isinstance(values, np.ndarray | Tensor) else type(values).__name__
        raise InputTypeError(f"expected a NumPy array or a torch tensor of real numbers, not {what}")
    dtype = values.dtype.newbyteorder("=")  # PyTorch has neither the other byte order nor long doubles
    dtype = np.dtype(np.float64) if dtype.kind == "f" and dtype.itemsize > 8 else dtype
    return torch.from_numpy(np.require(values, dtype, ["C", "W"]))  # a copy where it is read-only, as Pillow's are


def like(given: Array, result: Tensor) -> Array:
    """A result as a tensor if the input was one, else as an array."""
    return result if isinstance(given, Tensor) else result.detach().numpy()


def check_finite(name: str, values: Tensor) -> None:
    """Check that all values are finite, and none is beyond :data:`LARGEST`.

    Raises:
        InputError: they are not floating, or some are not finite or too large; it says how many, and where the first
            is.
    """
    if not values.is_floating_point():
        raise InputError(f"{name} must be floating, not {values.dtype}")
    if not values.numel():
        return
    values = values.detach()
    least, most = torch.stack(values.aminmax()).tolist()  # NaN if any is
    if least >= -LARGEST and most <= LARGEST:
        return
    for stray, must in ((~values.isfinite(), "finite"), (values.abs() > LARGEST, f"at most {LARGEST:g} in magnitude")):
        if count := int(stray.sum()):
            first = tuple(stray.nonzero()[0].tolist())
            raise InputError(f"{name} must be {must}: {count} of {values.numel()} are not, the first at {first}")


def check_classes(name: str, count: int) -> None:
    """Check that there are two classes or more.

    Raises:
        InputError: there is one, which every pixel would have whatever its value.
    """
    if count == 1:
        raise InputError(
            f"{name} must have two classes or more, not one, which every pixel would have: for a binary probability p, "
            "stack 1 − p and p; for a binary logit z, stack 0 and z"
        )


def read_unary(unary: NDArray[Any] | Tensor, spatial_dims: int) -> Tensor:
    """Energies as a batch ``(B, C, *size)``.

    Raises:
        InputError: they have another shape, are not floating, or are not all finite.
    """
    energies = as_tensor(unary)
    shape = f"(C, {'H, W' if spatial_dims == 2 else '...'}), {1 + spatial_dims} axes, or a batch of such"
    if energies.ndim not in (1 + spatial_dims, 2 + spatial_dims):
        flat = energies.ndim == spatial_dims == 2  # pydensecrf's (C, H · W)
        hint = "; if it is flat: unary.reshape(C, H, W)" if flat else ""
        raise InputError(f"unary must be {shape}, not {tuple(energies.shape)}{hint}")
    if not energies.is_floating_point():
        raise InputError(f"unary must be floating energies, not {energies.dtype}; for labels, use unary_from_labels")
    if energies.ndim == 1 + spatial_dims:
        energies = energies[None]
    if 0 in energies.shape:
        raise InputError(f"unary must be {shape}, with at least one class and pixel, not {tuple(unary.shape)}")
    check_classes("unary", energies.shape[1])
    check_finite("unary", energies)
    _warn_of_probabilities(energies)
    return energies


def fix_labels(energies: Tensor, fixed: NDArray[Any] | Tensor, *, batched: bool) -> Tensor:
    """Energies that leave the pixels of given labels no other class.

    Args:
        energies: ``(B, C, *size)``.
        fixed: integers ``(*size)``, with a batch axis in front if ``batched``; 255 where nothing is given.
        batched: whether the unary was given as a batch.

    Raises:
        InputError: they have another shape or dtype, or there is no such class.
    """
    labels = as_tensor(fixed).to(energies.device)
    shape = (*energies.shape[:1], *energies.shape[2:]) if batched else tuple(energies.shape[2:])
    if tuple(labels.shape) != shape or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"fixed must be integers {shape}, not {labels.dtype} {tuple(labels.shape)}")
    labels = labels.long().reshape(len(energies), 1, *energies.shape[2:])
    given = labels != IGNORE
    strays = labels[given & ((labels < 0) | (labels >= energies.shape[1]))]
    if len(strays):
        last = energies.shape[1] - 1
        raise InputError(f"fixed has the class {int(strays[0])}; there are 0 to {last}, and {IGNORE} for none")
    classes = torch.arange(energies.shape[1], device=energies.device).view(-1, *[1] * (energies.ndim - 2))
    never = energies.new_tensor(min(LARGEST, torch.finfo(energies.dtype).max))
    return energies.where(~given, never).masked_fill(given & (labels == classes), 0)


def read_images(image: NDArray[Any] | Tensor | None, unary: Tensor, *, batched: bool) -> list[Tensor | None]:
    """The image ``(*size, channels)`` of each unary of a batch, with its own dtype and device.

    Args:
        image: ``(*size, channels)``, uint8 or floating, with a batch axis in front if ``batched``; or None.
        unary: ``(B, C, *size)``.
        batched: whether the unary was given as a batch.

    Raises:
        InputError: image and unary differ in size, or the image is not finite.
    """
    if image is None:
        return [None] * len(unary)
    images = as_tensor(image)
    size = tuple(unary.shape[2:])
    expected = (*unary.shape[:1], *size) if batched else size
    if images.ndim != len(expected) + 1 or tuple(images.shape[:-1]) != expected:
        shape = tuple(unary.shape[0 if batched else 1 :])
        swapped = tuple(images.shape[:-1]) == tuple(unary.shape[:1] * batched + unary.shape[1:-1])
        if swapped and unary.shape[-1] < unary.shape[1]:  # else it may be the image whose channels come first
            raise InputError(f"the unary is {shape}, as if its classes came last; they come before height and width")
        raise InputError(_misfit(tuple(images.shape), expected))
    if images.is_floating_point():
        check_finite("image", images)
        if images.shape[-1] == 3 and images.numel() and 0 < float(images.max()) <= 1:
            warnings.warn("the image's values are at most 1; colours should be 0–255", stacklevel=4)
    elif images.dtype != torch.uint8:
        raise InputError(f"image must be uint8 or floating, not {images.dtype}")
    images = images.detach()
    return list(images if batched else images[None])


def _misfit(image: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """The message for an image whose shape does not match the unary's."""
    found = f"image has shape {image}, but this unary needs {expected} plus a channel axis at the end"
    if image == expected:
        return f"{found}: a grey image has one channel, image[..., None]"
    if len(image) != len(expected) + 1:
        return f"{found}: {'one image for each unary of the batch' if len(image) == len(expected) else 'as many axes'}"
    if image[-len(expected) :] == expected:
        return f"{found}: channels come last (image.transpose or permute)"
    *outer, height, width = expected
    if image[:-1] == (*outer, width, height):
        return f"{found}: did you swap height and width? Height comes first in both"
    return f"{found}: resize the unary to the image's size, not the image"


def _warn_of_probabilities(unary: Tensor) -> None:
    """Warn of energies that sum to 1 at every sampled pixel: they are surely probabilities."""
    flat = unary.detach().flatten(2)
    sample = flat[:, :, :: max(1, flat.shape[2] // _SAMPLE)]
    # Fetched together: each transfer from a GPU waits for it.
    facts = (sample != sample[:, :1]).any(), sample.min(), (sample.sum(1) - 1).abs().max()
    varied, least, off = torch.stack([fact.float() for fact in facts]).tolist()
    if varied and least >= 0 and off < 1e-3:
        warnings.warn(
            "the unary sums to 1 at each pixel: these look like probabilities instead of energies; use "
            "unary_from_probabilities",
            stacklevel=4,
        )
