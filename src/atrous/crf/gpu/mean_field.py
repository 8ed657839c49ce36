"""Mean field on a GPU in a few fused Triton kernels: :mod:`atrous.crf.mean_field` in float32.

The corners of all CRF kernels are in one table, kernels with more features first, so that one launch blurs a direction
of all of them that have it. Sums over pixels are added nondeterministically: two runs agree to float32 rounding, and
under ``torch.use_deterministic_algorithms(True)`` the plain form computes instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atrous.crf.lattice import Lattice, gain
from atrous.crf.mean_field import Pairwise, factors
from atrous.ops.devices import has_triton

_SECTOR = 8
"""Number of classes in a memory transaction of 32 bytes; rows are aligned to it."""


def supports(device: torch.device) -> bool:
    """Whether the fused kernels can run on a device."""
    return has_triton(device) and not torch.are_deterministic_algorithms_enabled()


class MeanField:
    """The mean field of one image.

    Args:
        unary: energies ``(C, *size)``, without gradients.
        pairwise: the kernels.

    Raises:
        InputError: as for :class:`atrous.crf.lattice.Lattice`.
    """

    def __init__(self, unary: Tensor, pairwise: Sequence[Pairwise]) -> None:
        self._shape, classes = unary.shape, len(unary)
        width = -(-classes // _SECTOR) * _SECTOR
        self._energies = unary.new_zeros(unary[0].numel(), width, dtype=torch.float32)
        self._energies[:, :classes] = unary.flatten(1).T

        pairwise = sorted(pairwise, key=lambda p: -p.features.shape[1])
        lattices = [Lattice(p.features) for p in pairwise]
        self._directions = _Directions(lattices)
        first, ends = self._directions.first, self._directions.ends
        self._splat_rows = torch.cat([(x.vertices.T + b).int() for x, b in zip(lattices, first, strict=True)])
        self._slice_rows = torch.cat([(x.vertices.T + b).int() for x, b in zip(lattices, ends, strict=True)])
        splat, read = [], []
        for weights, sums, p in zip([x.weights.T for x in lattices], self._sums(lattices), pairwise, strict=True):
            d = p.features.shape[1]
            before, after = factors(sums * gain(d), p.normalization)
            splat.append(weights * before)
            read.append(weights * (after * gain(d)))
            if p.weight.ndim == 0:
                read[-1] *= p.weight.detach().to(unary.device)
        self._splat_weights, self._slice_weights = torch.cat(splat), torch.cat(read)
        self._mixed = [
            (slice(end, end + x.neighbours.shape[2]), p)
            for end, x, p in zip(ends, lattices, pairwise, strict=True)
            if p.weight.ndim or p.compatibility is not None
        ]

    def distribution(self, iterations: int, tolerance: float | None) -> Tensor:
        """The distribution, float32 ``(C, *size)``."""
        return self._iterate(iterations, tolerance).T.reshape(self._shape)

    def labels(self, iterations: int, tolerance: float | None) -> Tensor:
        """The most likely classes, uint8 ``(*size)`` (int64 above 255 classes)."""
        labels = self._iterate(iterations, tolerance).argmax(1).reshape(self._shape[1:])
        return labels.to(torch.uint8) if self._shape[0] <= 255 else labels

    def _iterate(self, iterations: int, tolerance: float | None) -> Tensor:
        """The distribution ``(N, C)`` after some iterations, fewer if it converges to a tolerance."""
        splatted = self._energies.new_zeros(self._directions.rows, self._energies.shape[1])
        blurred: Tensor | None = None
        last: Tensor | None = None
        for _ in range(iterations):
            if tolerance is None:
                self._update(blurred, splatted, None)
            else:
                q = torch.empty_like(self._energies)
                self._update(blurred, splatted, q)
                q = q[:, : self._shape[0]]
                if last is not None and float((q - last).abs().max()) <= tolerance:
                    return q
                last = q
            blurred = self._mix(self._directions.blur(splatted))
            splatted.zero_()
        q = torch.empty_like(self._energies)
        self._update(blurred, None, q)
        return q[:, : self._shape[0]]

    def _update(self, blurred: Tensor | None, splatted: Tensor | None, q: Tensor | None) -> None:
        """One step from messages to the distribution ``q`` ``(N, WIDTH)``, if given, and to ``splatted``, if given."""
        from atrous.crf.gpu import triton_kernels  # Triton is loaded when it is first needed

        triton_kernels.update(
            self._energies,
            blurred,
            (self._slice_rows, self._slice_weights),
            splatted,
            (self._splat_rows, self._splat_weights),
            q,
            self._shape[0],
        )

    def _mix(self, table: Tensor) -> Tensor:
        """Apply the weights by class and the compatibilities to a blurred table, in place."""
        for rows, pairwise in self._mixed:
            values = table[rows, : self._shape[0]]
            if pairwise.compatibility is not None:
                values = -values @ pairwise.compatibility.detach().to(values).T
            table[rows, : self._shape[0]] = (
                values * pairwise.weight.detach().to(values) if pairwise.weight.ndim else values
            )
        return table

    def _sums(self, lattices: Sequence[Lattice]) -> Sequence[Tensor]:
        """The filter of a constant 1, without its gain, for each kernel: ``(N,)``."""
        weights = torch.cat([x.weights.T for x in lattices])
        table = weights.new_zeros(self._directions.rows)
        table.index_add_(0, self._splat_rows.flatten(), weights.flatten())
        blurred = self._directions.blur(table[:, None])[:, 0]
        read = weights * blurred[self._slice_rows]
        return [part.sum(0) for part in torch.split(read, [x.weights.shape[1] for x in lattices])]


class _Directions:
    """The corners of several lattices one after the other, and the blur over all of them.

    Args:
        lattices: those with more directions first.

    Attributes:
        rows: number of corners, *M*.
        first: the first corner of each lattice.
        ends: the first row of each lattice in what :meth:`blur` returns.
    """

    def __init__(self, lattices: Sequence[Lattice]) -> None:
        counts = [x.neighbours.shape[2] for x in lattices]
        depths = [len(x.neighbours) for x in lattices]
        self.rows = sum(counts)
        self.first = [sum(counts[:i]) for i in range(len(counts))]
        # Two directions at a time, back and forth between two tables: an even number of steps ends in the second.
        self.ends = [b + self.rows * (-(-depth // 2) % 2 == 0) for b, depth in zip(self.first, depths, strict=True)]
        steps = -(-depths[0] // 2)
        self._reach = [sum(n for n, depth in zip(counts, depths, strict=True) if depth > t) for t in range(2 * steps)]
        none = self.rows
        self._neighbours = lattices[0].neighbours.new_full((2 * steps, 2, self.rows), none, dtype=torch.int32)
        for x, first, count in zip(lattices, self.first, counts, strict=True):
            there = x.neighbours < count
            self._neighbours[: len(there), :, first : first + count] = torch.where(there, x.neighbours + first, none)

    def blur(self, table: Tensor) -> Tensor:
        """Blur ``(M, W)`` along all directions; returns ``(2M, W)``."""
        from atrous.crf.gpu import triton_kernels

        tables = table.new_empty(2, *table.shape)
        for step in range(len(self._neighbours) // 2):
            target, both = tables[step % 2], slice(2 * step, 2 * step + 2)
            triton_kernels.blur(
                table, target, self._neighbours[both], (self._reach[2 * step], self._reach[2 * step + 1])
            )
            table = target
        return tables.flatten(0, 1)
