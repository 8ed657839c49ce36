"""Fully connected CRF with Gaussian edge potentials, by mean field (Krähenbühl and Koltun, NeurIPS 2011)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atrous.crf.fused import fused_mean_field
from atrous.crf.inputs import LARGEST, Array, check_finite, fix_labels, like, read_images, read_unary
from atrous.crf.mean_field import Messages, Normalization, Pairwise, mean_field, tracked_mean_field
from atrous.crf.pairwise import Kernel, Order
from atrous.crf.published import PUBLISHED
from atrous.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from atrous.crf.cpu import mean_field as cpu
    from atrous.crf.gpu import mean_field as gpu

Image = NDArray[Any] | Tensor | None
Labels = NDArray[Any] | Tensor | None
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Tracked(Generic[Array]):
    """A mean field and its convergence.

    Attributes:
        q: the distribution, as :class:`DenseCRF` returns it.
        free_energies: KL(Q‖P) up to a constant, summed over the pixels, which mean field minimises: initially and
            after each iteration; fewer if the CRF's tolerance stopped it.
    """

    q: Array
    free_energies: list[float]


class DenseCRF(nn.Module):
    """Refines class energies: nearby pixels of similar colour come to agree on a class.

    ``DenseCRF([Gaussian(sxy=3, weight=3), Bilateral(sxy=80, srgb=13, weight=10)])(image, unary)``

    Without gradients, fused kernels compute in float32: on a CPU in as many threads as torch uses, on a GPU if Triton
    is available. Otherwise plain torch computes in the dtype of the unary (half precisions in float32), differentiable
    with respect to the unary, the kernels' weights and their compatibilities.

    Memory on a CPU, besides image, unary and result: 8 bytes for each lattice corner of a pixel (72 a pixel for a
    Gaussian and a bilateral kernel), and about 60 a pixel for tables at 21 classes, up to 130 for a very colourful
    image. Normalising ``"before"`` or ``"after"`` adds 4 for each corner; compatibilities need larger tables.
    :meth:`labels` does not need the distribution, 4 bytes a class.

    Args:
        kernels: any number of :class:`Gaussian`, :class:`Bilateral` and :class:`Custom` kernels.
        iterations: mean-field steps, 0 or more.
        normalization: of each kernel K by its sums n = K(1): ``"symmetric"`` n^-½ K n^-½ (pydensecrf's default),
            ``"before"`` K n^-1, ``"after"`` n^-1 K (DeepLab's release), or ``"none"``.
        order: which position comes first among the features; the lattice's approximation depends on it slightly.
            ``"xy"`` is the order of pydensecrf's 2-D interface, ``"yx"`` the usual one with its general interface.
        spatial_dims: axes of an image besides channels: 2, or 3 for videos and volumes ``(C, T, H, W)``.
        tolerance: stop early once no probability changes by more than this in an iteration.
        trainable: weights and compatibilities require gradients (as after ``crf.requires_grad_()``).

    Attributes:
        weights: one parameter for each kernel, ``()`` or ``(C,)``.
        compatibilities: ``(C, C)`` parameters of the kernels that have one, by kernel index.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import atrous, numpy as np
        >>> image = np.zeros((20, 30, 3), np.uint8)
        >>> unary = np.zeros((2, 20, 30), np.float32)  # −log of class probabilities
        >>> crf = atrous.DenseCRF([atrous.Gaussian(sxy=3, weight=3), atrous.Bilateral(sxy=80, srgb=13, weight=10)])
        >>> crf.labels(image, unary).shape
        (20, 30)
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        iterations: int = 10,
        *,
        normalization: Normalization = "symmetric",
        order: Order = "xy",
        spatial_dims: int = 2,
        tolerance: float | None = None,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(kernels, Sequence) or not all(isinstance(kernel, Kernel) for kernel in kernels):
            raise InputTypeError(f"kernels must be a list of Gaussian, Bilateral and Custom kernels, not {kernels!r}")
        for given, choices in ((normalization, get_args(Normalization)), (order, get_args(Order))):
            if given not in choices:
                raise InputError(f"{given!r} is not one of {', '.join(choices)}")
        if tolerance is not None and not tolerance > 0:
            raise InputError(f"tolerance must be a change of probability above 0, or None, not {tolerance}")
        self.kernels = tuple(kernels)
        self.iterations = _whole_number("iterations", iterations, 0)
        self.normalization: Normalization = normalization
        self.order: Order = order
        self.spatial_dims = _whole_number("spatial_dims", spatial_dims, 1)
        self.tolerance = tolerance
        self.weights = nn.ParameterList(_parameter("weight", kernel.weight, (0, 1)) for kernel in kernels)
        self.compatibilities = nn.ParameterDict(
            {
                str(i): _parameter("compatibility", kernel.compatibility, (2,))
                for i, kernel in enumerate(kernels)
                if kernel.compatibility is not None
            }
        )
        self.requires_grad_(trainable)

    @classmethod
    def published(cls, name: str) -> DenseCRF:
        """A CRF with one of the published sets of parameters, listed in :data:`PUBLISHED`.

        Raises:
            InputError: there is no such set; the message lists the available ones.
        """
        if name not in PUBLISHED:
            raise InputError(f"there is no published CRF {name!r}; available are {', '.join(PUBLISHED)}")
        kernels, iterations, normalization = PUBLISHED[name]
        return cls(kernels, iterations, normalization=normalization)

    def forward(self, image: Image, unary: Array, *, fixed: Labels = None) -> Array:
        """The mean field: the probability of each class at each pixel.

        Args:
            image: ``(H, W, channels)``, or ``(B, H, W, channels)`` with a batch of unaries; uint8, or floating in the
                same units (0–255 for the published widths). None if all kernels are Gaussian.
            unary: energies ``(C, H, W)`` or ``(B, C, H, W)``, floating, up to ±10³⁰, lower is likelier: see
                :func:`unary_from_probabilities`, :func:`unary_from_logits` and :func:`unary_from_labels`.
            fixed: integers ``(H, W)`` or ``(B, H, W)``: the class of each pixel that keeps it, such as one under a
                stroke of the user's, and 255 for the others. (Of a stroke whose label may be wrong,
                :func:`unary_from_labels` takes the confidence.)

        Returns:
            Probabilities of the kind (numpy or torch), shape, dtype and device of ``unary``.

        Raises:
            InputError: shapes do not match each other or the CRF, there is a single class, a value is not finite or
                beyond ±10³⁰, a width is too small, or a fixed class does not exist.
        """
        energies, images = self._read(image, unary, fixed)
        fields = [self._mean_field(one, e) for one, e in zip(images, energies, strict=True)]
        q = torch.stack(fields) if len(fields) > 1 else fields[0]  # one large image is not held twice
        return like(unary, q.reshape(unary.shape))

    def labels(self, image: Image, unary: Array, *, fixed: Labels = None) -> Array:
        """The most likely class of each pixel, with the arguments of :meth:`forward`.

        Returns:
            uint8 ``(H, W)`` or ``(B, H, W)`` (int64 above 255 classes), numpy or torch like ``unary``.
        """
        energies, images = self._read(image, unary, fixed)
        dtype = torch.uint8 if energies.shape[1] <= 255 else torch.int64
        labels = torch.empty(len(energies), *energies.shape[2:], dtype=dtype, device=energies.device)
        with torch.no_grad():
            for i, (one, e) in enumerate(zip(images, energies, strict=True)):
                labels[i] = self._labels(one, e)
        return like(unary, labels if unary.ndim == energies.ndim else labels[0])

    def track(self, image: Image, unary: Array, *, fixed: Labels = None) -> Tracked[Array]:
        """The mean field of one image, in plain torch, with the free energy of each step.

        Args:
            image: as in :meth:`forward`, of one image.
            unary: ``(C, H, W)``.
            fixed: as in :meth:`forward`.
        """
        energies, images = self._read(image, unary, fixed)
        if unary.ndim != 1 + self.spatial_dims:
            raise InputError(f"track takes the unary of one image, (C, H, W), not {tuple(unary.shape)}")
        messages = Messages(self._pairwise(images[0], energies[0]))
        with torch.no_grad():
            points = energies[0].float() if energies.dtype in _HALF else energies[0]
            q, free = tracked_mean_field(points.flatten(1).T, messages, self.iterations, self.tolerance)
        return Tracked(like(unary, q.T.reshape(unary.shape).to(energies.dtype)), free)

    def extra_repr(self) -> str:
        return f"{list(self.kernels)}, iterations={self.iterations}, normalization={self.normalization!r}"

    def _read(self, image: Image, unary: NDArray[Any] | Tensor, fixed: Labels) -> tuple[Tensor, list[Tensor | None]]:
        """Energies ``(B, C, *size)`` and one image ``(*size, channels)`` for each."""
        energies = read_unary(unary, self.spatial_dims)
        if fixed is not None:
            energies = fix_labels(energies, fixed, batched=unary.ndim == energies.ndim)
        classes = energies.shape[1]
        for parameter in [*self.weights, *self.compatibilities.values()]:
            if parameter.ndim and len(parameter) != classes:
                raise InputError(f"the unary has {classes} classes, but a kernel's weights are for {len(parameter)}")
        for i, weight in enumerate(self.weights):  # which may have been trained
            check_finite("the weights of a kernel", weight)
            if str(i) in self.compatibilities:
                check_finite("the penalties of a kernel", weight.detach().abs().max() * self.compatibilities[str(i)])
        return energies, read_images(image, energies, batched=unary.ndim == energies.ndim)

    def _mean_field(self, image: Tensor | None, unary: Tensor) -> Tensor:
        """The distribution ``(C, *size)`` of one image."""
        if unary.dtype in _HALF:
            return self._mean_field(image, unary.float()).to(unary.dtype)
        if field := self._fused(image, unary):
            return field.distribution(self.iterations, self.tolerance).to(unary.dtype)
        messages = Messages(self._pairwise(image, unary))
        return mean_field(unary.flatten(1).T, messages, self.iterations, self.tolerance).T.reshape(unary.shape)

    def _labels(self, image: Tensor | None, unary: Tensor) -> Tensor:
        """The most likely classes ``(*size)`` of one image."""
        unary = unary.float() if unary.dtype in _HALF else unary
        if field := self._fused(image, unary):
            return field.labels(self.iterations, self.tolerance)
        return self._mean_field(image, unary).argmax(0)

    def _fused(self, image: Tensor | None, unary: Tensor) -> cpu.MeanField | gpu.MeanField | None:
        """The mean field of one image in fused kernels; None if they do not support it."""
        if torch.is_grad_enabled() and any(t.requires_grad for t in (unary, *self.parameters())):
            return None
        return fused_mean_field(unary.detach(), self._pairwise(image, unary))

    def _pairwise(self, image: Tensor | None, unary: Tensor) -> list[Pairwise]:
        """The kernels over one image."""
        if image is not None:
            image = image.to(unary.device, torch.float32)
        return [
            Pairwise(
                kernel.features(image, unary.shape[1:], self.order).to(unary.device),
                self.weights[i].to(unary.device),
                self.compatibilities[str(i)].to(unary.device) if str(i) in self.compatibilities else None,
                self.normalization,
            )
            for i, kernel in enumerate(self.kernels)
        ]


def _whole_number(name: str, value: int, least: int) -> int:
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return int(value)


def _parameter(name: str, values: Any, axes: tuple[int, ...]) -> nn.Parameter:
    """A weight ``()`` or ``(C,)``, or a compatibility ``(C, C)``, as a parameter with its own memory."""
    form = "one number, or one for each class" if name == "weight" else "square, with a row for each class"
    expected = f"a kernel's {name} must be {form}, all finite and at most {LARGEST:g} in magnitude"
    try:
        given = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError):
        raise InputError(f"{expected}; not {values!r}") from None
    tensor = given.detach().clone().float()
    square = tensor.ndim < 2 or tensor.shape[0] == tensor.shape[1]
    if tensor.ndim not in axes or not square or not bool((tensor.abs() <= LARGEST).all()):  # NaN is not either
        raise InputError(f"{expected}; not {tuple(tensor.shape)} {values}")
    return nn.Parameter(tensor)
