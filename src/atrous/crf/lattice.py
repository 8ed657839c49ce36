"""The permutohedral lattice (Adams, Baek and Davis, Eurographics 2010): Gaussian filtering of scattered points.

Four steps. Embed: find the simplex of the lattice that each point lies in. Splat: distribute the point's value to the
corners of that simplex. Blur: along each direction of the lattice. Slice: read the values back from the corners.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.ops.devices import has_triton

FARTHEST = 1 << 22
"""Farthest distance of a point from the origin, in lattice units, at which float32 still resolves simplices."""
_KEY_BITS = 62


class Lattice:
    """The corners of all simplices that contain one of the given points, and the Gaussian filter over them.

    Args:
        features: ``(N, d)``, the points, each axis divided by its standard deviation; any device. Positions are
            computed in float32. The approximation depends on the order of the axes.

    Attributes:
        vertices: int64 ``(N, d+1)``, the indices of the corners of each point's simplex.
        weights: float32 ``(N, d+1)``, the point's barycentric weights; they sum to 1.
        neighbours: int64 ``(d+1, 2, M)``, the corners before and after each corner in each direction; *M* for none.

    Raises:
        InputError: a point lies farther out than :data:`FARTHEST`, or is not finite.
    """

    def __init__(self, features: Tensor) -> None:
        strides = key_strides(features)
        keys, weights = _find_corners(features, strides)
        packed, ids = torch.unique(keys, return_inverse=True)
        self.vertices, self.weights = ids.T, weights.T
        steps = packed.new_tensor(directions(strides))[:, None]
        self.neighbours = _find(packed, torch.stack([packed - steps, packed + steps], dim=1))

    def filter(self, values: Tensor) -> Tensor:
        """Filter ``(N, C)`` values over the points: approximately sums weighted by a Gaussian of standard deviation 1.

        Differentiable with respect to the values. The sums are not normalised: divide by the filter of a constant 1.
        """
        result: Tensor = _Filter.apply(values, self, False)
        return result

    def splat(self, values: Tensor) -> Tensor:
        """Distribute ``(N, C)`` values to the corners, ``(M + 1, C)``; the last row, for no corner, is zero."""
        table = values.new_zeros(self.neighbours.shape[2] + 1, values.shape[1])
        for vertices, weights in self._corners(values):
            table.index_add_(0, vertices, values * weights)
        return table

    def blur(self, table: Tensor, *, reverse: bool) -> Tensor:
        """Blur ``(M + 1, C)`` with (½, 1, ½) along each direction in turn, in reverse order if ``reverse``."""
        for before, after in self.neighbours.flip(0) if reverse else self.neighbours:
            blurred = table.clone()
            blurred[:-1] += 0.5 * (table[before] + table[after])
            table = blurred
        return table

    def slice(self, table: Tensor) -> Tensor:
        """Read ``(N, C)`` values back from the corners."""
        values = table.new_zeros(len(self.vertices), table.shape[1])
        for vertices, weights in self._corners(values):
            values += table[vertices] * weights
        return values * gain(self.vertices.shape[1] - 1)

    def _corners(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        weights = self.weights.to(values.dtype)
        return [(self.vertices[:, corner], weights[:, corner, None]) for corner in range(weights.shape[1])]


class _Filter(torch.autograd.Function):
    """Splat, blur and slice; it is linear, so its gradient is the filter with the directions in reverse order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: Lattice, reverse: bool) -> Tensor:
        ctx.lattice, ctx.reverse = lattice, reverse
        return lattice.slice(lattice.blur(lattice.splat(values), reverse=reverse))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradients[0], ctx.lattice, not ctx.reverse), None, None


def _find_corners(features: Tensor, strides: list[int]) -> tuple[Tensor, Tensor]:
    """The keys of the corners of each point's simplex, int64 ``(d+1, N)``, and their weights, float32 ``(d+1, N)``."""
    if not has_triton(features.device):
        keys, weights = embed(features)
        return (keys * keys.new_tensor(strides)).sum(2).T.contiguous(), weights.T.contiguous()
    from atrous.crf.gpu import triton_kernels  # Triton is loaded when it is first needed

    factors = torch.tensor(scale_factors(features.shape[1]), device=features.device)
    return triton_kernels.embed_points(features.float(), factors, torch.tensor(strides, device=features.device))


def embed(features: Tensor) -> tuple[Tensor, Tensor]:
    """Find the simplex of each point.

    Returns:
        The first *d* of the *d* + 1 coordinates of its corners, int64 ``(N, d+1, d)``, and its barycentric weights,
        float32 ``(N, d+1)``. The operations and their order are those of the authors' implementation, so that points on
        the boundary of two simplices, of which images have many, are assigned to the same one.
    """
    d = features.shape[1]
    elevated = _elevate(features.float())
    down = elevated.new_tensor(1 / (d + 1))
    rounded = (elevated * down).round()
    nearest = rounded * (d + 1)  # the closest point whose coordinates are all multiples of d + 1
    order = (elevated - nearest).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1) + rounded.sum(dim=1, keepdim=True).long()
    wrap = (d + 1) * ((rank < 0).long() - (rank > d).long())  # back to where the coordinates sum to zero
    rank, nearest = rank + wrap, nearest + wrap

    falling = torch.zeros_like(elevated).scatter_(1, rank, (elevated - nearest) * down)  # (N, d+1), by rank
    weights = falling.flip(1)
    weights[:, 1:] -= falling.flip(1)[:, :-1]
    weights[:, 0] += 1 - falling[:, 0]

    corner, place = torch.meshgrid(torch.arange(d + 1), torch.arange(d + 1), indexing="ij")
    canonical = torch.where(place <= d - corner, corner, corner - (d + 1)).to(rank.device)
    return nearest[:, None, :d].long() + canonical[:, rank[:, :d]].movedim(0, 1), weights


def _elevate(features: Tensor) -> Tensor:
    """Map points ``(N, d)`` to the plane of ``(N, d+1)`` coordinates that sum to zero (Adams et al., p. 5)."""
    n, d = features.shape
    elevated, total = features.new_empty(n, d + 1), features.new_zeros(n)
    for j, factor in reversed(list(enumerate(scale_factors(d), start=1))):
        scaled = features[:, j - 1] * factor
        elevated[:, j] = total - j * scaled
        total = total + scaled
    elevated[:, 0] = total
    return elevated


def scale_factors(d: int) -> list[float]:
    """The factor of each axis that gives the filter a standard deviation of 1, rounded as in the authors' code."""
    deviation = float(torch.tensor(math.sqrt(2 / 3) * (d + 1)))
    return [1 / math.sqrt((i + 2) * (i + 1)) * deviation for i in range(d)]


def gain(d: int) -> float:
    """The factor of sliced values in d dimensions."""
    return 1 / (1 + 2.0**-d)


def key_strides(features: Tensor) -> list[int]:
    """Strides, one for each of d coordinates: a corner's scalar product with them is its unique key.

    The neighbours of corners have unique keys, too. If the box of all features contains more than 2⁶² corners (many
    dimensions, or tiny standard deviations), products wrap around, and collisions are improbable (10⁻⁵ for 10⁷
    corners) instead of impossible.

    Raises:
        InputError: a feature is not finite, or lies farther out than :data:`FARTHEST`.
    """
    d = features.shape[1]
    factors = torch.tensor(scale_factors(d), dtype=torch.float64)
    low, high = (factors * torch.stack(features.aminmax(dim=0)).cpu().double()).unbind()
    farthest = float(torch.maximum(low.abs(), high.abs()).sum()) * d
    if not farthest < FARTHEST:
        raise InputError(
            "features are not finite, or too large for the lattice: standard deviations are too small for the image "
            f"(found values from {float(features.min()):.3g} to {float(features.max()):.3g} standard deviations)"
        )
    span = high - low
    extents = [math.ceil(float(span[j:].sum()) + (j * float(span[j - 1]) if j else 0)) + 6 * (d + 1) for j in range(d)]
    if math.prod(extents) >= 1 << _KEY_BITS:
        generator = torch.Generator().manual_seed(0)
        return [int(n) | 1 for n in torch.randint(1 << _KEY_BITS, (d,), generator=generator)]
    return [math.prod(extents[:j]) for j in range(d)]


def directions(strides: list[int]) -> list[int]:
    """The difference of keys (modulo 2⁶⁴) between neighbouring corners in each of the d + 1 directions."""
    steps = [(len(strides) + 1) * stride - sum(strides) for stride in [*strides, 0]]
    return [(step + (1 << 63)) % (1 << 64) - (1 << 63) for step in steps]


def _find(sorted_keys: Tensor, wanted: Tensor) -> Tensor:
    """The indices of ``wanted`` in ``sorted_keys``; their length for keys that are missing."""
    wanted = wanted.contiguous()
    places = torch.searchsorted(sorted_keys, wanted)
    found = sorted_keys[places.clamp(max=len(sorted_keys) - 1)] == wanted
    return torch.where(found, places, len(sorted_keys))
