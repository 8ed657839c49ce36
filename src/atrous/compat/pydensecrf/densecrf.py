"""``pydensecrf.densecrf``: the dense CRF behind pydensecrf's names, arguments and axes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property
from numbers import Number
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.fused import fused_mean_field
from atrous.crf.inputs import LARGEST
from atrous.crf.lattice import Lattice
from atrous.crf.mean_field import Messages, Normalization, Pairwise, mean_field
from atrous.crf.pairwise import Bilateral, Gaussian
from atrous.errors import InputError

Floats = NDArray[np.float32]
Compat = float | Sequence[float] | NDArray[Any]

padding_pixels = False
"""Whether to repeat a fault of pydensecrf. It reads pixels four at a time, and where their number is not a multiple of
four, pixels that do not exist (black, in the first corner) add corners to its lattices. Plain torch then computes."""


class KernelType(IntEnum):
    """Which parameters of a kernel pydensecrf could learn; its Python interface learns none, so all are equal."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """How a kernel K is normalised by its sums n = K(1); docs/crf.md has the formulas."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType
_NORMALIZATIONS: tuple[Normalization, ...] = ("none", "before", "after", "symmetric")


class ConstUnary:
    """Energies for :meth:`DenseCRF.setUnary`.

    Args:
        u: ``(C, N)``.
    """

    def __init__(self, u: NDArray[Any]) -> None:
        self.energies = _floats("u", u)


class LogisticUnary(ConstUnary):
    """Energies that are linear in features, for :meth:`DenseCRF.setUnary`.

    Args:
        L: ``(C, d)``.
        f: ``(d, N)``.
    """

    def __init__(self, L: NDArray[Any], f: NDArray[Any]) -> None:
        super().__init__(_floats("L", L) @ _floats("f", f))


class DenseCRF:
    """A dense CRF over N variables with features of their own.

    Arrays are flat, ``(C, N)`` and ``(d, N)``, and may have any real dtype and layout in memory; pydensecrf takes
    C-contiguous float32 only. They are copied. Energies of +inf are as good as 10³⁰; NaN and −inf are refused.

    Args:
        nvar: number of variables N.
        nlabels: number of classes C.

    Example:
        >>> import numpy as np
        >>> from atrous.compat.pydensecrf.densecrf import DenseCRF
        >>> from atrous.compat.pydensecrf.utils import create_pairwise_gaussian
        >>> d = DenseCRF(6, 2)
        >>> d.setUnaryEnergy(np.zeros((2, 6), np.float32))
        >>> d.addPairwiseEnergy(create_pairwise_gaussian((3, 3), (2, 3)), compat=3)
        >>> np.array(d.inference(5)).shape
        (2, 6)
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._classes = nlabels
        self._size: tuple[int, ...] = (nvar,)
        self._unary: Tensor | None = None
        self._pairwise: list[Pairwise] = []

    def setUnary(self, u: ConstUnary) -> None:
        """Set the energies."""
        self._set(u.energies)

    def setUnaryEnergy(self, u: NDArray[Any], f: NDArray[Any] | None = None) -> None:
        """Set the energies ``(C, N)``; with ``f``, ``u @ f``.

        Raises:
            InputError: they have another shape, or are NaN or −inf.
        """
        self._set(ConstUnary(u).energies if f is None else LogisticUnary(u, f).energies)

    def addPairwiseEnergy(
        self,
        features: NDArray[Any],
        compat: Compat,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over any features.

        Args:
            features: ``(d, N)``, each divided by its standard deviation.
            compat: a number is a *reward* for agreeing, as a weight of :class:`atrous.Gaussian`; one for each class
                ``(C,)`` is a *penalty*, as in pydensecrf; a matrix ``(C, C)``, of penalties, is made symmetric.
            kernel: without effect, see :class:`KernelType`.
            normalization: of the kernel.

        Raises:
            InputError: features or ``compat`` have another shape, or are not finite.
        """
        points = _floats("features", features)
        if points.shape[1] != self._variables:
            _misfit("pairwise energy", ("?", self._variables), points.shape)
        self._add(torch.from_numpy(points).T, compat, normalization)

    def inference(self, niter: int) -> Floats:
        """The distribution ``(C, N)`` after some iterations of mean field.

        Returns:
            float32, an array; pydensecrf returns an object from which ``np.array`` makes one.
        """
        return self._distribution(int(niter), None)

    def startInference(self) -> tuple[Floats, Floats, Floats]:
        """The distribution of the unary, ``(C, N)``, to hand to :meth:`stepInference` with two further, empty arrays.

        Without energies it is zero everywhere, as in pydensecrf.
        """
        nothing = np.empty((0, 0), np.float32)
        if self._unary is None:
            return np.zeros((self._classes, self._variables), np.float32), nothing, nothing.copy()
        return self._distribution(0, None), nothing, nothing.copy()

    def stepInference(self, Q: Floats, tmp1: Floats, tmp2: Floats) -> None:
        """One iteration, which replaces the values in ``Q``; ``tmp1`` and ``tmp2`` are not used."""
        Q[...] = self._distribution(1, np.ascontiguousarray(Q, np.float32))

    def klDivergence(self, Q: NDArray[Any]) -> float:
        """What mean field minimises, up to a constant; pydensecrf counts each pair twice, and so does this.

        :meth:`atrous.DenseCRF.track` has the free energy itself.
        """
        q = torch.from_numpy(np.ascontiguousarray(Q, np.float32)).T
        entropy = (q * q.clamp(min=1e-20).log()).sum(dtype=torch.float64)
        unary = (q * self._energies.T).sum(dtype=torch.float64)
        return float(entropy + unary - (q * self._messages(q)).sum(dtype=torch.float64))

    @property
    def _variables(self) -> int:
        return int(np.prod(self._size))

    @property
    def _energies(self) -> Tensor:
        """``(C, N)``; pydensecrf's are 0 as long as none are set."""
        return torch.zeros(self._classes, self._variables) if self._unary is None else self._unary

    @cached_property
    def _messages(self) -> Messages:
        odd = padding_pixels and self._variables % 4
        return Messages(self._pairwise, _PaddedLattice if odd else Lattice)

    @cached_property
    def _field(self) -> Any:
        """Compiled mean field over the image's size; None where plain torch computes."""
        if padding_pixels and self._variables % 4:
            return None
        return fused_mean_field(self._energies.reshape(self._classes, *self._size), self._pairwise)

    def _distribution(self, iterations: int, start: Floats | None) -> Floats:
        q = None if start is None else torch.from_numpy(start)
        proper = q is None or bool(((q.sum(0) - 1).abs() < 1e-3).all() and (q >= 0).all())
        if proper and self._field is not None:
            begin = None if q is None else q.reshape(self._classes, *self._size)
            found = self._field.distribution(iterations, None, start=begin).reshape(self._classes, -1)
        elif q is None:
            found = mean_field(self._energies.T, self._messages, iterations, None).T
        else:
            found = (self._messages(q.T) - self._energies.T).softmax(1).T
        return np.ascontiguousarray(found.numpy())

    def _set(self, energies: Floats) -> None:
        if energies.shape != (self._classes, self._variables):
            _misfit("unary energy", (self._classes, self._variables), energies.shape)
        self._changed()
        self._unary = torch.from_numpy(energies)

    def _add(self, features: Tensor, compat: Compat, normalization: int) -> None:
        weight, matrix = self._compatibility(compat)
        self._changed()
        self._pairwise.append(Pairwise(features, weight, matrix, _NORMALIZATIONS[normalization]))

    def _compatibility(self, compat: Compat) -> tuple[Tensor, Tensor | None]:
        """Weight and compatibility of a :class:`~atrous.crf.mean_field.Pairwise`."""
        values = np.asarray(compat, np.float32)
        if values.shape not in ((), (self._classes,), (self._classes, self._classes)):
            raise InputError(
                f"compat is {values.shape}; expected a number, a vector ({self._classes},) or a matrix "
                f"({self._classes}, {self._classes})"
            )
        if not (np.abs(values) <= LARGEST).all():
            raise InputError(f"compat must be finite, at most {LARGEST:g} in magnitude; found {compat}")
        if values.ndim == 2:
            return torch.tensor(1.0), torch.from_numpy((values + values.T) / 2)
        return torch.from_numpy(np.array(-values if values.ndim else values)), None

    def _changed(self) -> None:
        """Forget what was built for other energies or kernels."""
        self.__dict__.pop("_field", None)
        self.__dict__.pop("_messages", None)


class DenseCRF2D(DenseCRF):
    """A dense CRF over an image.

    Args:
        w: width in pixels, *before* the height.
        h: height.
        nlabels: number of classes C.

    Example:
        >>> import numpy as np
        >>> from atrous.compat.pydensecrf.densecrf import DenseCRF2D
        >>> d = DenseCRF2D(30, 20, 2)
        >>> d.setUnaryEnergy(np.zeros((2, 600), np.float32))
        >>> d.addPairwiseGaussian(sxy=3, compat=3)
        >>> d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.zeros((20, 30, 3), np.uint8), compat=10)
        >>> np.argmax(d.inference(5), axis=0).reshape(20, 30).shape
        (20, 30)
    """

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        super().__init__(w * h, nlabels)
        self._size = (h, w)

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: Compat,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over positions.

        Args:
            sxy: standard deviation in pixels: one number, or x and y.
            compat: as in :meth:`DenseCRF.addPairwiseEnergy`.
            kernel: without effect.
            normalization: of the kernel.
        """
        features = Gaussian(_pair(sxy), 1).features(None, self._size, "xy")
        self._add(features, compat, normalization)

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: NDArray[Any],
        compat: Compat,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over positions and colours.

        Args:
            sxy: standard deviation in pixels: one number, or x and y.
            srgb: standard deviation of the colours: one number, or one for each channel.
            rgbim: uint8 ``(H, W, 3)``.
            compat: as in :meth:`DenseCRF.addPairwiseEnergy`.
            kernel: without effect.
            normalization: of the kernel.

        Raises:
            InputError: the image has another size, dtype or number of channels.
        """
        image = np.asarray(rgbim)
        if image.dtype != np.uint8:
            raise InputError(f"rgbim must be uint8, as the image was read (0–255), not {image.dtype}")
        if image.shape != (*self._size, 3):
            hint = "; for other channels, addPairwiseEnergy with utils.create_pairwise_bilateral"
            _misfit("pairwise bilateral", (*self._size, 3), image.shape, hint if image.shape[:2] == self._size else "")
        pixels = torch.from_numpy(np.ascontiguousarray(image)).float()
        features = Bilateral(_pair(sxy), srgb, 1).features(pixels, self._size, "xy")
        self._add(features, compat, normalization)


class _PaddedLattice(Lattice):
    """A lattice with the corners of a pixel that does not exist, at the origin."""

    def __init__(self, features: Tensor) -> None:
        super().__init__(torch.cat([features, features.new_zeros(1, features.shape[1])]))
        self.vertices, self.weights = self.vertices[:-1], self.weights[:-1]


def _floats(name: str, values: NDArray[Any]) -> Floats:
    """A copy as C-contiguous float32, two-dimensional and finite, but for +inf."""
    try:
        floats = np.array(values, np.float32, order="C")
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a two-dimensional array of numbers, not {type(values).__name__}") from None
    if floats.ndim != 2:
        raise InputError(f"{name} must have two axes, not {floats.shape}: its pixels are flat, reshape(C, -1)")
    if strays := int((~(floats >= -LARGEST)).sum()):
        raise InputError(f"{name} has {strays} values that are NaN, or below {-LARGEST:g}")
    return np.minimum(floats, np.float32(LARGEST), out=floats)


def _pair(widths: float | Sequence[float]) -> float | Sequence[float]:
    """The first two widths: pydensecrf does not look at further ones."""
    return widths if isinstance(widths, Number) else tuple(widths)[:2]  # type: ignore[arg-type]


def _misfit(what: str, needed: tuple[int | str, ...], found: tuple[int, ...], hint: str = "") -> NoReturn:
    raise InputError(f"bad shape for {what}: expected {needed}, found {found}{hint}")
