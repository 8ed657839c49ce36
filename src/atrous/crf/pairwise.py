"""The pairwise kernels of a dense CRF: which pixels are alike, and how much that weighs (SPEC §5.1)."""

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
    """The smoothness kernel: pixels that are near each other.

    Args:
        sxy: standard deviation in pixels; one number, or one for each axis in the order x, y (then z or time).
        weight: what full agreement of the surroundings is worth, in units of the unary; a number, or one for each
            class ``(C,)``: the energy −w K(Q).
        compatibility: ``(C, C)``, how much a row's class minds a column's class nearby: the energy w (compatibility
            K(Q)). When left out, classes only gain from their own kind (Potts).

    Raises:
        ValueError: a width is not positive, or something is no finite number.
    """

    sxy: float | Sequence[float]
    weight: Values
    compatibility: Sequence[Sequence[float]] | NDArray[Any] | Tensor | None = None

    def __post_init__(self) -> None:
        _check_widths("sxy", self.sxy)

    def features(self, image: Tensor | None, size: Sequence[int], order: Order) -> Tensor:
        """Positions ``(N, d)`` over the widths, of all pixels of an image of ``size``."""
        device = torch.device("cpu") if image is None else image.device
        return positions(self.sxy, size, order, device)


@dataclass(frozen=True)
class Bilateral:
    """The appearance kernel: pixels that are near each other and alike in colour.

    Args:
        sxy: standard deviation in pixels, as in :class:`Gaussian`.
        srgb: standard deviation in units of the image (0–255); one number, or one for each channel. Any number of
            channels will do: depth, infrared, and what else is stacked behind the colours.
        weight: as in :class:`Gaussian`.
        compatibility: as in :class:`Gaussian`.

    Raises:
        ValueError: a width is not positive, or something is no finite number.
    """

    sxy: float | Sequence[float]
    srgb: float | Sequence[float]
    weight: Values
    compatibility: Sequence[Sequence[float]] | NDArray[Any] | Tensor | None = None

    def __post_init__(self) -> None:
        _check_widths("sxy", self.sxy)
        _check_widths("srgb", self.srgb)

    def features(self, image: Tensor | None, size: Sequence[int], order: Order) -> Tensor:
        """Positions and colours ``(N, d + channels)`` over the widths."""
        if image is None:
            raise InputError("a Bilateral kernel compares colours: give it the image, not None")
        places = positions(self.sxy, size, order, image.device)
        colours = image.reshape(len(places), -1).T
        return torch.cat([places.T, colours / _widths("srgb", self.srgb, len(colours), image.device)]).T


@dataclass(frozen=True)
class Custom:
    """A kernel over any features.

    Args:
        of: from an image, float32 ``(*size, channels)``, to its features ``(*size, d)``, each divided by its standard
            deviation: surface normals, optical flow, only some of the channels.
        weight: as in :class:`Gaussian`.
        compatibility: as in :class:`Gaussian`.
    """

    of: Callable[[Tensor], Tensor]
    weight: Values
    compatibility: Sequence[Sequence[float]] | NDArray[Any] | Tensor | None = None

    def features(self, image: Tensor | None, size: Sequence[int], order: Order) -> Tensor:  # noqa: ARG002
        if image is None:
            raise InputError("a Custom kernel makes features of the image: give it one, not None")
        features = self.of(image)
        if features.shape[:-1] != image.shape[:-1] or features.ndim != image.ndim:
            raise InputError(
                f"a Custom kernel's features are {tuple(features.shape)}; for this image they must be "
                f"{tuple(image.shape[:-1])} and as many channels as there are features"
            )
        return features.reshape(-1, features.shape[-1]).float()


Kernel = Gaussian | Bilateral | Custom


def positions(widths: float | Sequence[float], size: Sequence[int], order: Order, device: torch.device) -> Tensor:
    """The place of each pixel of an image of ``size`` (height, width), row by row, in units of the widths (x, y).

    Returns:
        float32 ``(N, d)``, x first or y first; one axis after the other in memory, as all features best are.
    """
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32, device=device) for n in size), indexing="ij")
    # (height, width) and (time, height, width) from the back: x, y and time
    places = torch.stack([axis.reshape(-1) for axis in reversed(axes)]) / _widths("sxy", widths, len(size), device)
    return (places if order == "xy" else places.flip(0)).T


def _widths(name: str, widths: float | Sequence[float], count: int, device: torch.device) -> Tensor:
    """One standard deviation for each axis, ``(count, 1)``."""
    given = torch.tensor(widths, dtype=torch.float32, device=device).reshape(-1)
    if len(given) not in (1, count):
        raise InputError(
            f"{name} has {len(given)} values; the image has {count} such axes: give one number, or {count}"
        )
    return given.expand(count)[:, None]


def _check_widths(name: str, widths: float | Sequence[float]) -> None:
    values = np.asarray(widths, dtype=float)
    if values.ndim > 1 or values.size == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"{name} is a standard deviation, above 0, or one for each axis; not {widths}")
