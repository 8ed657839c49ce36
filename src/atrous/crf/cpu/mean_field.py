"""Mean field on a CPU in compiled code and several threads: :mod:`atrous.crf.mean_field` in float32.

The division into strips does not depend on the number of threads, no two strips write to the same memory, and sums over
strips are added in order: results do not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.cpu import mean_field_kernels
from atrous.crf.cpu.lattice_kernels import MOST_AXES
from atrous.crf.cpu.strips import Floats, Strips, Tables
from atrous.crf.mean_field import Pairwise
from atrous.ops.simd import LANES
from atrous.ops.workers import Workers

_SAMPLE = 1 << 12
"""Number of pixels from which the frequency of classes is estimated."""
_NO_ZERO = 1e-37
_LOOK_AGAIN = 3
"""Iterations from one update of all classes to the next; in between, negligible classes are skipped."""


def supports(pairwise: Sequence[Pairwise]) -> bool:
    """Whether the compiled code supports these kernels: at least one, and none with very many features."""
    return len(pairwise) > 0 and all(p.features.shape[1] <= MOST_AXES for p in pairwise)


class MeanField:
    """The mean field of one image; after construction, its features, which take much memory, can be freed.

    Args:
        unary: energies ``(C, *size)``, on the CPU, without gradients.
        pairwise: the kernels.
        threads: number of threads.

    Raises:
        InputError: as for :class:`atrous.crf.lattice.Lattice`.
    """

    def __init__(self, unary: Tensor, pairwise: Sequence[Pairwise], threads: int) -> None:
        self._shape, self._threads = unary.shape, threads
        self._width = -(-len(unary) // LANES) * LANES
        self._order = order = _frequent_first(unary)
        self._energies = np.ascontiguousarray(unary.numpy(), np.float32).reshape(-1)
        with Workers(threads) as workers:
            self._strips = Strips(pairwise, unary.shape[1:], self._width, workers)
        lattices = zip(pairwise, self._strips.lattices, strict=True)
        self._factors = [_factors(p, lattice.gain, order, self._width) for p, lattice in lattices]
        self._compatibilities = [
            None if p.compatibility is None else p.compatibility.detach().numpy()[np.ix_(order, order)]
            for p in pairwise
        ]

    def distribution(self, iterations: int, tolerance: float | None, start: Tensor | None = None) -> Tensor:
        """The distribution, float32 ``(C, *size)``.

        Args:
            iterations: mean-field steps.
            tolerance: stop early once no probability changes by more than this.
            start: the distribution to begin with, ``(C, *size)``; that of the unary if None.
        """
        q = np.zeros(self._energies.size, np.float32)
        self._iterate(iterations, tolerance, q, np.empty(0, np.uint8), start)
        return torch.from_numpy(q).reshape(self._shape)

    def labels(self, iterations: int, tolerance: float | None) -> Tensor:
        """The most likely classes, uint8 ``(*size)`` (int64 above 255 classes)."""
        # The change of a distribution can only be measured if the last one is kept.
        q = np.zeros(self._energies.size if tolerance is not None else 0, np.float32)
        labels = np.empty(self._strips.pixels, np.uint8 if len(self._order) <= 255 else np.int64)
        self._iterate(iterations, tolerance, q, labels)
        return torch.from_numpy(labels).reshape(self._shape[1:])

    def _iterate(
        self, iterations: int, tolerance: float | None, q: Floats, labels: NDArray[Any], start: Tensor | None = None
    ) -> None:
        """Iterate, and write the results whose arrays are not empty."""
        first = self._energies
        if start is not None:  # the first update turns energies into the distribution that is splatted
            first = -start.clamp(min=_NO_ZERO).log().numpy().reshape(-1)
        strips, width, nothing = self._strips, self._width, np.empty(0, np.float32)
        tables, active = Tables(strips, width), np.empty(strips.runs, np.int32)
        changes: list[float] = []

        def update(number: int, iteration: int) -> Floats:
            strip, last = strips.strips[number], iteration == iterations
            written = last or tolerance is not None
            out = nothing if last else strip.rows(width)
            change = mean_field_kernels.update_strip(
                self._energies if iteration else first,
                self._order,
                strip.first,
                strip.last,
                strips.rows,
                strips.corners,
                strips.slice_weights,
                tables.gather(number, self._factors) if iteration else nothing,
                strips.splat_weights,
                out,
                active,
                iteration == 0 or iteration % _LOOK_AGAIN == 1 or written,
                q if written else nothing,
                labels if written else labels[:0],
            )
            changes.append(change)
            return out

        with Workers(self._threads) as workers:
            for iteration in range(iterations):
                changes.clear()
                numbers = range(len(strips.strips))
                workers.in_order(partial(update, iteration=iteration), tables.collect, numbers)
                if tolerance is not None and iteration and max(changes) <= tolerance:
                    return
                tables.blur(workers)
                for compatibility, table in zip(self._compatibilities, tables.blurred, strict=True):
                    if compatibility is not None:
                        _apply(compatibility, table)
            tables.splatted.clear()  # frees memory for the result
            workers(partial(update, iteration=iterations), range(len(strips.strips)))


def _frequent_first(unary: Tensor) -> NDArray[np.int64]:
    """The classes by decreasing mean probability over a sample of pixels."""
    sample = unary.flatten(1)[:, :: max(1, unary[0].numel() // _SAMPLE)]
    return (-sample.float()).softmax(0).sum(1).argsort(descending=True, stable=True).numpy()


def _factors(pairwise: Pairwise, gain: float, order: NDArray[np.int64], width: int) -> Floats:
    """The factors of a kernel's sliced values, ``(W,)``."""
    factors = np.zeros(width, np.float32)
    factors[: len(order)] = gain * np.broadcast_to(pairwise.weight.detach().numpy(), len(order))[order]
    return factors


def _apply(compatibility: NDArray[Any], table: Floats) -> None:
    """Turn the distributions at the corners, in a blurred table, into messages, in place."""
    classes = len(compatibility)
    vectors = -(-classes // LANES)
    rows = table.reshape(vectors, -1, LANES)
    values = rows.transpose(1, 0, 2).reshape(-1, vectors * LANES)
    values[:, :classes] = -values[:, :classes] @ compatibility.T.astype(np.float32)
    rows[:] = values.reshape(-1, vectors, LANES).transpose(1, 0, 2)
