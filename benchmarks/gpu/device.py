"""The GPU's own rates, which all others are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu._measure import Measured, Row, Rows, Sizes, attempt, measured


def rows(device: torch.device, sizes: Sizes) -> Rows:
    """A matrix product and a copy."""
    yield attempt("matrix product", partial(matrix_product, device, sizes.matrix))
    yield attempt("copy", partial(copy, device, sizes.copied))


def matrix_product(device: torch.device, side: int) -> Measured:
    """A large bfloat16 matrix product."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    work = partial(torch.mm, a, b, out=torch.empty_like(a))
    return measured(f"matrix product, bfloat16, {side}³", work, device, images=0, operations=2.0 * side**3)


def copy(device: torch.device, size: int) -> Measured:
    """A copy of many bytes."""
    source = torch.randint(256, (size,), device=device, dtype=torch.uint8)
    row = measured(f"copy of {size / 2**20:.0f} MiB", partial(torch.empty_like(source).copy_, source), device)
    return replace(row, images=0, remarks=f"{2 * size / row.median / 1e12:.2f} TB/s, read and written")


def matrix_rate(found: Sequence[Row]) -> float | None:
    """Operations per second of the matrix product in this section's rows."""
    product = found[0]
    return product.operations / product.median if isinstance(product, Measured) else None
