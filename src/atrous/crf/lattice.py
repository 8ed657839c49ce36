"""The permutohedral lattice of Adams, Baek and Davis (2010): Gaussian filtering of scattered points in four steps.

Embed: each point finds the simplex of the lattice it lies in. Splat: its value is shared out to that simplex's corners.
Blur: along each direction of the lattice. Slice: each point reads its corners back (SPEC §5.4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.ops.devices import has_triton

FARTHEST = 1 << 22
"""How far from the origin a point may lie, in lattice units: float32 still tells neighbouring simplices apart there."""
_KEY_BITS = 62


class Lattice:
    """The corners of all simplices that hold one of the given points, and the Gaussian filter over them.

    Args:
        features: ``(N, d)``, the points, each axis divided by its standard deviation; any device. Positions are
            computed in float32. The approximation depends on the order of the axes.

    Attributes:
        vertices: int64 ``(N, d+1)``, the corners of each point's simplex, counted from 0.
        weights: float32 ``(N, d+1)``, its barycentric weights; they add up to 1.
        neighbours: int64 ``(d+1, 2, M)``, the corners beside each corner in each direction; *M* stands for none.

    Raises:
        ValueError: a point lies farther out than :data:`FARTHEST`, or is no number.
    """

    def __init__(self, features: Tensor) -> None:
        strides = key_strides(features)
        keys, weights = _find_corners(features, strides)
        packed, ids = torch.unique(keys, return_inverse=True)
        self.vertices, self.weights = ids.T, weights.T
        steps = packed.new_tensor(directions(strides))[:, None]
        self.neighbours = _find(packed, torch.stack([packed - steps, packed + steps], dim=1))

    def filter(self, values: Tensor) -> Tensor:
        """Blur ``(N, C)`` values over the points: approximately sums weighted by a Gaussian of standard deviation 1.

        Differentiable in the values. The sums are not normalised: filter a constant 1 for what to divide by.
        """
        result: Tensor = _Filter.apply(values, self, False)
        return result

    def splat(self, values: Tensor) -> Tensor:
        """Share out ``(N, C)`` values to the corners, ``(M + 1, C)``; the last row, for no corner, is zero."""
        table = values.new_zeros(self.neighbours.shape[2] + 1, values.shape[1])
        for vertices, weights in self._corners(values):
            table.index_add_(0, vertices, values * weights)
        return table

    def blur(self, table: Tensor, *, reverse: bool) -> Tensor:
        """Blur ``(M + 1, C)`` with (½, 1, ½) along each direction in turn; the last direction first if ``reverse``."""
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
    """Splat, blur and slice: linear, so its gradient is the filter with the directions in the opposite order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: Lattice, reverse: bool) -> Tensor:
        ctx.lattice, ctx.reverse = lattice, reverse
        return lattice.slice(lattice.blur(lattice.splat(values), reverse=reverse))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradients[0], ctx.lattice, not ctx.reverse), None, None


def _find_corners(features: Tensor, strides: list[int]) -> tuple[Tensor, Tensor]:
    """The corners of each point's simplex by their keys, int64 ``(d+1, N)``, and the weights, float32 ``(d+1, N)``."""
    if not has_triton(features.device):
        keys, weights = embed(features)
        return (keys * keys.new_tensor(strides)).sum(2).T.contiguous(), weights.T.contiguous()
    from atrous.crf.gpu import triton_kernels as crf_gpu  # Triton is loaded when it is first needed

    factors = torch.tensor(scale_factors(features.shape[1]), device=features.device)
    return crf_gpu.embed_points(features.float(), factors, torch.tensor(strides, device=features.device))


def embed(features: Tensor) -> tuple[Tensor, Tensor]:
    """Find the simplex of each point.

    Returns:
        The first *d* of the *d* + 1 coordinates of its corners, int64 ``(N, d+1, d)``, and its barycentric weights,
        float32 ``(N, d+1)``. The operations and their order are the reference implementation's: points on the
        boundary of two simplices, of which images have many, fall to the same one.
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
    """Put points ``(N, d)`` onto the plane of ``(N, d+1)`` coordinates that sum to zero (Adams et al., p. 5)."""
    n, d = features.shape
    elevated, total = features.new_empty(n, d + 1), features.new_zeros(n)
    for j, factor in reversed(list(enumerate(scale_factors(d), start=1))):
        scaled = features[:, j - 1] * factor
        elevated[:, j] = total - j * scaled
        total = total + scaled
    elevated[:, 0] = total
    return elevated


def scale_factors(d: int) -> list[float]:
    """What each axis is multiplied with, so that the filter has standard deviation 1; rounded as the reference does."""
    deviation = float(torch.tensor(math.sqrt(2 / 3) * (d + 1)))
    return [1 / math.sqrt((i + 2) * (i + 1)) * deviation for i in range(d)]


def gain(d: int) -> float:
    """What sliced values are multiplied with."""
    return 1 / (1 + 2.0**-d)


def key_strides(features: Tensor) -> list[int]:
    """Numbers, one for each of d coordinates, by whose scalar product with them each corner gets a key of its own.

    So do the neighbours of corners. Only where more than 2⁶² corners lie in the box of all features, in many dimensions
    or with tiny deviations, the products wrap around, and that rests on the odds (10⁻⁵ for 10⁷ corners).

    Raises:
        ValueError: a feature is no number, or lies farther out than :data:`FARTHEST`.
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
    """The step to the next corner in each of the d + 1 directions, as a difference of keys (modulo 2⁶⁴)."""
    steps = [(len(strides) + 1) * stride - sum(strides) for stride in [*strides, 0]]
    return [(step + (1 << 63)) % (1 << 64) - (1 << 63) for step in steps]


def _find(sorted_keys: Tensor, wanted: Tensor) -> Tensor:
    """The places of ``wanted`` in ``sorted_keys``; their number where there is no such key."""
    wanted = wanted.contiguous()
    places = torch.searchsorted(sorted_keys, wanted)
    found = sorted_keys[places.clamp(max=len(sorted_keys) - 1)] == wanted
    return torch.where(found, places, len(sorted_keys))
