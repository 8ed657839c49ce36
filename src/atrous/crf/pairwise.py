"""The pairwise kernels of a dense CRF (Krähenbühl and Koltun, NeurIPS 2011, eq. 2 and 3; DeepLab v2, §3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError

Order = Literal["xy", "yx"]
Values = float | Sequence[float] | NDArray[Any] | Tensor


@dataclass(frozen=True)
class Gaussian:
    """The smoothness kernel, which compares positions.

    Args:
        sxy: standard deviation in pixels; one number, or one for each axis in the order x, y (then z or time).
        weight: the weight w of the energy −w K(Q), in units of the unary: the gain where all surrounding pixels agree.
            A number, or one for each class ``(C,)``.
        compatibility: ``(C, C)``, the penalty of the row's class for the column's class nearby: the energy is
            w (compatibility K(Q)). None for the Potts model, in which classes gain only from their own kind.

    Raises:
        InputError: a width is not positive and finite.

    Example:
        >>> import atrous
        >>> atrous.DenseCRF([atrous.Gaussian(sxy=3, weight=3)], iterations=5)
        DenseCRF(...)
    """

    sxy: float | Sequence[float]
    weight: Values
    compatibility: Sequence[Sequence[float]] | NDArray[Any] | Tensor | None = None

    def __post_init__(self) -> None:
        _check_widths("sxy", self.sxy)

    def features(self, image: Tensor | None, size: Sequence[int], order: Order) -> Tensor:
        """The positions of all pixels of an image of ``size``, divided by the widths: ``(N, d)``."""
        device = torch.device("cpu") if image is None else image.device
        return positions(self.sxy, size, order, device)


@dataclass(frozen=True)
class Bilateral:
    """The appearance kernel, which compares positions and colours.

    Args:
        sxy: standard deviation in pixels, as in :class:`Gaussian`.
        srgb: standard deviation in units of the image (0–255); one number, or one for each channel. There may be any
            number of channels, such as depth or infrared besides the colours.
        weight: as in :class:`Gaussian`.
        compatibility: as in :class:`Gaussian`.

    Raises:
        InputError: a width is not positive and finite.

    Example:
        >>> import atrous
        >>> atrous.DenseCRF([atrous.Bilateral(sxy=80, srgb=13, weight=10)], iterations=5)
        DenseCRF(...)
    """

    sxy: float | Sequence[float]
    srgb: float | Sequence[float]
    weight: Values
    compatibility: Sequence[Sequence[float]] | NDArray[Any] | Tensor | None = None

    def __post_init__(self) -> None:
        _check_widths("sxy", self.sxy)
        _check_widths("srgb", self.srgb)

    def features(self, image: Tensor | None, size: Sequence[int], order: Order) -> Tensor:
        """Positions and colours divided by the widths: ``(N, d + channels)``."""
        if image is None:
            raise InputError("a Bilateral kernel compares colours: pass the image, not None")
        places = positions(self.sxy, size, order, image.device)
        colours = image.reshape(len(places), -1).T
        return torch.cat([places.T, colours / _widths("srgb", self.srgb, len(colours), image.device)]).T


@dataclass(frozen=True)
class Custom:
    """A kernel over any features, such as surface normals, optical flow, or some of the channels.

    Args:
        of: computes from an image, float32 ``(*size, channels)``, its features ``(*size, d)``, each divided by its
            standard deviation.
        weight: as in :class:`Gaussian`.
        compatibility: as in :class:`Gaussian`.
    """

    of: Callable[[Tensor], Tensor]
    weight: Values
    compatibility: Sequence[Sequence[float]] | NDArray[Any] | Tensor | None = None

    def features(self, image: Tensor | None, *_: Any) -> Tensor:
        """The features of all pixels, ``(N, d)``."""
        if image is None:
            raise InputError("a Custom kernel computes features of the image: pass the image, not None")
        features = self.of(image)
        if features.shape[:-1] != image.shape[:-1] or features.ndim != image.ndim:
            raise InputError(
                f"a Custom kernel's features are {tuple(features.shape)}; for this image they must be "
                f"{tuple(image.shape[:-1])} plus an axis of features"
            )
        return features.reshape(-1, features.shape[-1]).float()


Kernel = Gaussian | Bilateral | Custom


def positions(widths: float | Sequence[float], size: Sequence[int], order: Order, device: torch.device) -> Tensor:
    """The position of each pixel of an image of ``size`` (height, width), row by row, divided by the widths (x, y).

    Returns:
        float32 ``(N, d)``, x first or y first; each axis contiguous in memory, which is best for all features.
    """
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32, device=device) for n in size), indexing="ij")
    # (height, width) and (time, height, width) in reverse: x, y and time
    places = torch.stack([axis.reshape(-1) for axis in reversed(axes)]) / _widths("sxy", widths, len(size), device)
    return (places if order == "xy" else places.flip(0)).T


def _widths(name: str, widths: float | Sequence[float], count: int, device: torch.device) -> Tensor:
    """One standard deviation for each axis, ``(count, 1)``."""
    given = torch.tensor(widths, dtype=torch.float32, device=device).reshape(-1)
    if len(given) not in (1, count):
        raise InputError(
            f"{name} has {len(given)} values; the image has {count} such axes: pass one number, or {count}"
        )
    return given.expand(count)[:, None]


def _check_widths(name: str, widths: float | Sequence[float]) -> None:
    try:
        values = np.asarray(widths, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim > 1 or values.size == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"{name} must be a standard deviation above 0, or one for each axis; not {widths}")
