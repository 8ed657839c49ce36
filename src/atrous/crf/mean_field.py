"""Mean field of a fully connected CRF in plain torch, the reference: any device, differentiable.

Krähenbühl and Koltun, NeurIPS 2011, §3 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from atrous.crf.lattice import Lattice

Normalization = Literal["symmetric", "before", "after", "none"]

_NO_ZERO = 1e-20


@dataclass(frozen=True)
class Pairwise:
    """One kernel over the pixels of an image.

    Attributes:
        features: ``(N, d)``, each divided by its standard deviation.
        weight: ``()`` or ``(C,)``.
        compatibility: ``(C, C)`` penalties, or None for Potts.
        normalization: by its sums n = K(1), as in :class:`atrous.crf.DenseCRF`.
    """

    features: Tensor
    weight: Tensor
    compatibility: Tensor | None
    normalization: Normalization = "symmetric"


class Messages:
    """Message passing between all pixels through some kernels, each normalised by its sums n = K(1)."""

    def __init__(self, pairwise: Sequence[Pairwise], lattice: Callable[[Tensor], Lattice] = Lattice) -> None:
        self._pairwise = pairwise
        self._lattices = [lattice(p.features) for p in pairwise]
        self._norms = [
            factors(_sums(built), p.normalization) for built, p in zip(self._lattices, pairwise, strict=True)
        ]

    def __call__(self, q: Tensor) -> Tensor:
        """The messages ``(N, C)`` of a distribution ``(N, C)``: negative pairwise energies."""
        total = torch.zeros_like(q)
        for pairwise, lattice, (before, after) in zip(self._pairwise, self._lattices, self._norms, strict=True):
            filtered = after.to(q) * lattice.filter(before.to(q) * q)
            if pairwise.compatibility is not None:
                filtered = -filtered @ pairwise.compatibility.to(q).T
            total = total + pairwise.weight.to(q) * filtered
        return total


def mean_field(unary: Tensor, messages: Messages, iterations: int, tolerance: float | None) -> Tensor:
    """The distribution ``(N, C)`` for energies ``(N, C)`` after some iterations, fewer if it converges earlier."""
    q = (-unary).softmax(1)
    for _ in range(iterations):
        last, q = q, (messages(q) - unary).softmax(1)
        if tolerance is not None and float((q - last).detach().abs().max()) <= tolerance:
            break
    return q


def tracked_mean_field(
    unary: Tensor, messages: Messages, iterations: int, tolerance: float | None
) -> tuple[Tensor, list[float]]:
    """:func:`mean_field`, and the free energy initially and after each iteration."""
    q, energies = (-unary).softmax(1), []
    while True:
        message = messages(q)
        energies.append(float((q * (q.clamp(min=_NO_ZERO).log() + unary - message / 2)).sum()))
        if len(energies) > iterations:
            return q, energies
        last, q = q, (message - unary).softmax(1)
        if tolerance is not None and float((q - last).abs().max()) <= tolerance:
            iterations = len(energies)


def factors(sums: Tensor, normalization: Normalization) -> tuple[Tensor, Tensor]:
    """The factors, each of the shape of ``sums``, to multiply values with before and after a filter with these sums."""
    sums = sums + _NO_ZERO
    if normalization == "symmetric":
        return sums.rsqrt(), sums.rsqrt()
    ones = torch.ones_like(sums)
    if normalization == "before":
        return 1 / sums, ones
    return (ones, 1 / sums) if normalization == "after" else (ones, ones)


def _sums(lattice: Lattice) -> Tensor:
    """The filter of a constant 1, ``(N, 1)``."""
    return lattice.filter(torch.ones(len(lattice.vertices), 1, device=lattice.vertices.device))
