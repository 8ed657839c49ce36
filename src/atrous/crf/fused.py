"""Mean field on the CPU in compiled code and several threads: what :mod:`atrous.crf.mean_field` computes, in float32.

The pixels are cut into strips whatever the number of threads, no two of which write to one place, and what strips add
up is added in their order: results do not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.crf.mean_field import Normalization, Pairwise
from atrous.crf.strips import Floats, Strips, aligned
from atrous.crf.workers import Workers
from atrous.kernels import crf_mean_field
from atrous.kernels.crf_lattice import MOST_AXES
from atrous.kernels.simd import LANES

_SAMPLE = 1 << 12
"""Pixels that are asked which classes are frequent."""
_LOOK_AGAIN = 3
"""Iterations from one look at all classes to the next; in between, those that have become negligible stay so."""


def serves(pairwise: Sequence[Pairwise]) -> bool:
    """Whether the compiled form can compute with these kernels: there are some, and none has very many features."""
    return len(pairwise) > 0 and all(p.features.shape[1] <= MOST_AXES for p in pairwise)


def mean_field(
    unary: Tensor,
    pairwise: Sequence[Pairwise],
    normalization: Normalization,
    iterations: int,
    tolerance: float | None,
    threads: int,
) -> Tensor:
    """The distribution, float32 ``(C, *size)``, for energies ``(C, *size)`` on the CPU; without gradients.

    Raises:
        ValueError: as :class:`atrous.crf.lattice.Lattice` does.
    """
    classes, pixels = len(unary), unary[0].numel()
    width = -(-classes // LANES) * LANES
    order = _frequent_first(unary)
    energies = np.ascontiguousarray(unary.numpy(), np.float32).reshape(-1)
    q, nothing = np.zeros(classes * pixels, np.float32), np.empty(0, np.float32)
    with Workers(threads) as workers:
        strips = Strips(pairwise, unary.shape[1:], width, normalization, workers)
        splatted = aligned(strips.table_rows * width)
        # Messages are not needed while tables are blurred: then the same memory is room for that.
        messages = aligned((strips.table_rows + len(strips.lattices)) * width)
        active = np.empty(strips.runs, np.int32)
        tables, begin = [], 0
        for lattice in strips.lattices:
            table = lattice.table(width)
            tables.append((lattice, table, messages[begin : begin + len(table)]))
            begin += len(table)
        blurred = [
            (table, _factors(p, lattice.gain, order, width))
            for p, (lattice, table, _) in zip(pairwise, tables, strict=True)
        ]
        # The largest first, so that no thread is left with it at the end.
        vectors = [(entry, vector) for entry in reversed(tables) for vector in range(width // LANES)]
        changes: list[float] = []

        def update(number: int, iteration: int) -> None:
            strip, last = strips.strips[number], iteration == iterations
            q_wanted = last or tolerance is not None
            sliced = strip.part(messages, width) if iteration else nothing
            if iteration:
                strips.gather(number, sliced, blurred, width)
            change = crf_mean_field.update_strip(
                energies,
                order,
                strip.first,
                strip.last,
                strips.rows,
                strips.corners,
                strips.slice_weights,
                sliced,
                strips.splat_weights,
                nothing if last else strip.part(splatted, width),
                active,
                iteration == 0 or iteration % _LOOK_AGAIN == 1 or q_wanted,
                q if q_wanted else nothing,
            )
            changes.append(change)

        for iteration in range(iterations + 1):
            changes.clear()
            workers(partial(update, iteration=iteration), range(len(strips.strips)))
            if iteration == iterations or (tolerance is not None and iteration and max(changes) <= tolerance):
                break
            workers(lambda task: task[0][0].blur(splatted, task[1], *task[0][1:]), vectors)
            for p, (table, _) in zip(pairwise, blurred, strict=True):
                if p.compatibility is not None:
                    _apply(p.compatibility.detach().numpy()[np.ix_(order, order)], table)
    return torch.from_numpy(q).reshape(unary.shape)


def _frequent_first(unary: Tensor) -> NDArray[np.int64]:
    """The classes in the order of how likely they are over some pixels."""
    sample = unary.flatten(1)[:, :: max(1, unary[0].numel() // _SAMPLE)]
    return (-sample.float()).softmax(0).sum(1).argsort(descending=True, stable=True).numpy()


def _factors(pairwise: Pairwise, gain: float, order: NDArray[np.int64], width: int) -> Floats:
    """What a kernel's sliced values are multiplied with, ``(W,)``."""
    factors = np.zeros(width, np.float32)
    factors[: len(order)] = gain * np.broadcast_to(pairwise.weight.detach().numpy(), len(order))[order]
    return factors


def _apply(compatibility: NDArray[Any], table: Floats) -> None:
    """Make of each corner's distribution, in a blurred table, its messages."""
    classes = len(compatibility)
    vectors = -(-classes // LANES)
    rows = table.reshape(vectors, -1, LANES)
    values = rows.transpose(1, 0, 2).reshape(-1, vectors * LANES)
    values[:, :classes] = -values[:, :classes] @ compatibility.T.astype(np.float32)
    rows[:] = values.reshape(-1, vectors, LANES).transpose(1, 0, 2)
