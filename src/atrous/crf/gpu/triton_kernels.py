"""The hot loops of the dense CRF on a GPU, in Triton.

Points and pixels are processed in blocks; a program holds ``(BLOCK, LANES)`` numbers, LANES being the number of
coordinates or classes rounded up to a power of two. Arrays of corners are ``(corners, pixels)``, so that neighbouring
pixels are adjacent in memory; tables are ``(rows, WIDTH)``, so that the classes of a corner are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048
"""Numbers that a program holds at once: 16 for each thread of four warps."""
_NEGLIGIBLE = tl.constexpr(1e-7)
"""Probabilities below this are not splatted, as on the CPU: those of most classes soon are."""
_ROUNDING = tl.constexpr(1.5 * 2**23)
"""Adding it to a float32 below 2²² and subtracting it again rounds halves to even, as ``torch.round`` does."""


def embed_points(features: Tensor, factors: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Find the corners of each point's simplex with exactly the operations of :func:`atrous.crf.lattice.embed`.

    Args:
        features: float32 ``(N, d)``, any strides.
        factors: float32 ``(d,)``, the factor of each axis.
        strides: int64 ``(d,)``; a corner's key is the scalar product of its coordinates with them.

    Returns:
        Keys, int64 ``(d+1, N)``, and barycentric weights, float32 ``(d+1, N)``.
    """
    points, axes = features.shape
    keys = torch.empty(axes + 1, points, dtype=torch.int64, device=features.device)
    weights = torch.empty(axes + 1, points, device=features.device)
    lanes = triton.next_power_of_2(axes + 1)
    block = max(1, _TILE // lanes**2)
    with torch.cuda.device_of(features):
        _embed_points[(triton.cdiv(points, block),)](
            features,
            factors,
            strides,
            keys,
            weights,
            points,
            *features.stride(),
            AXES=axes,
            LANES=lanes,
            BLOCK=block,
            enable_fp_fusion=False,  # a fused multiply-add rounds once: points on a boundary would change sides
        )
    return keys, weights


@triton.jit
def _embed_points(
    features,
    factors,
    strides,
    keys,
    weights,
    points,
    point_stride,
    axis_stride,
    AXES: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = point < points
    lane = tl.arange(0, LANES)[None, :]
    real = lane <= AXES

    total = tl.zeros((BLOCK,), tl.float32)
    elevated = tl.zeros((BLOCK, LANES), tl.float32)
    for step in tl.static_range(AXES):
        axis = AXES - step
        feature = tl.load(features + point * point_stride + (axis - 1) * axis_stride, mask=inside, other=0.0)
        scaled = feature * tl.load(factors + axis - 1)
        elevated = tl.where(lane == axis, (total - axis * scaled)[:, None], elevated)
        total += scaled
    elevated = tl.where(lane == 0, total[:, None], elevated)

    down = 1.0 / (AXES + 1)
    rounded = (elevated * down + _ROUNDING) - _ROUNDING
    nearest = rounded * (AXES + 1)
    rest = tl.where(real, elevated - nearest, -float("inf"))
    mine = tl.arange(0, LANES)[None, :, None]
    other = tl.arange(0, LANES)[None, None, :]
    larger = (rest[:, None, :] > rest[:, :, None]) | ((rest[:, None, :] == rest[:, :, None]) & (other < mine))
    rank = tl.sum(larger.to(tl.int32), 2) + tl.sum(rounded, 1).to(tl.int32)[:, None]
    wrap = tl.where(rank < 0, AXES + 1, tl.where(rank > AXES, -AXES - 1, 0))
    rank, nearest = rank + wrap, nearest + wrap.to(tl.float32)

    # From here on axis 1 counts corners, and axis 2 the coordinates that each is made of.
    value = tl.where(real, (elevated - nearest) * down, 0.0)[:, None, :]
    ranks = tl.broadcast_to(rank[:, None, :], (BLOCK, LANES, LANES))
    here = tl.sum(tl.where(ranks == AXES - mine, value, 0.0), 2)
    above = tl.sum(tl.where(ranks == tl.where(mine == 0, 0, AXES + 1 - mine), value, 0.0), 2)
    weight = tl.where(lane == 0, here + (1 - above), here - above)

    canonical = tl.where(ranks <= AXES - mine, mine, mine - (AXES + 1))
    coordinates = nearest.to(tl.int64)[:, None, :] + canonical.to(tl.int64)
    key = tl.sum(coordinates * tl.load(strides + other, mask=other < AXES, other=0), 2)

    places = lane.to(tl.int64) * points + point[:, None]
    tl.store(keys + places, key, mask=inside[:, None] & real)
    tl.store(weights + places, weight, mask=inside[:, None] & real)


def blur(table: Tensor, out: Tensor, neighbours: Tensor, reach: tuple[int, int]) -> None:
    """Blur with (½, 1, ½) along a direction, then along the next.

    Both in one launch: launching takes longer than reading nine rows a corner instead of three twice.

    Args:
        table: float32 ``(M, WIDTH)``.
        out: likewise; written up to the reach of the first direction.
        neighbours: int32 ``(2, 2, M)``, for both directions the rows before and after each row; *M* for none.
        reach: number of rows that have the first and the second direction.
    """
    lanes = _lanes(table.shape[1])
    block = max(1, _TILE // lanes)
    with torch.cuda.device_of(table):
        _blur[(triton.cdiv(reach[0], block),)](
            table,
            out,
            neighbours,
            *reach,
            len(table),
            WIDTH=table.shape[1],
            LANES=lanes,
            BLOCK=block,
            enable_fp_fusion=True,
        )


@triton.jit
def _blur(
    table,
    out,
    neighbours,
    first_reach,
    second_reach,
    corners,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < first_reach
    lane = tl.arange(0, LANES)[None, :]
    value = _blurred(table, neighbours, corners, row, inside, lane, WIDTH)
    seconds = neighbours + 2 * corners
    twice = row < second_reach
    before = tl.load(seconds + row, mask=twice, other=corners)
    after = tl.load(seconds + corners + row, mask=twice, other=corners)
    left = _blurred(table, neighbours, corners, before, before < corners, lane, WIDTH)
    right = _blurred(table, neighbours, corners, after, after < corners, lane, WIDTH)
    tl.store(out + _places(row, lane, WIDTH), value + 0.5 * (left + right), mask=inside[:, None] & (lane < WIDTH))


@triton.jit
def _blurred(table, neighbours, corners, row, there, lane, WIDTH: tl.constexpr):
    """Rows blurred along the first direction; zero where there is none."""
    before = tl.load(neighbours + row, mask=there, other=corners)
    after = tl.load(neighbours + corners + row, mask=there, other=corners)
    middle = _rows(table, row, there, lane, WIDTH)
    return middle + 0.5 * (
        _rows(table, before, before < corners, lane, WIDTH) + _rows(table, after, after < corners, lane, WIDTH)
    )


@triton.jit
def _rows(table, row, there, lane, WIDTH: tl.constexpr):
    return tl.load(table + _places(row, lane, WIDTH), mask=there[:, None] & (lane < WIDTH), other=0.0)


def update(
    energies: Tensor,
    blurred: Tensor | None,
    read: tuple[Tensor, Tensor],
    splatted: Tensor | None,
    write: tuple[Tensor, Tensor],
    q: Tensor | None,
    classes: int,
) -> None:
    """One mean-field step of all pixels: slice the messages, softmax, splat.

    Args:
        energies: float32 ``(N, WIDTH)``, of which the first ``classes`` are used.
        blurred: float32 ``(rows, WIDTH)``, the messages; None in the first step.
        read: int32 and float32 ``(corners, N)``, the rows of ``blurred`` that a pixel reads, and their weights.
        splatted: float32 ``(rows, WIDTH)``, added to; None in the last step.
        write: int32 and float32 ``(corners, N)``, the rows of ``splatted`` that a pixel adds to, and their weights.
        q: float32 ``(N, WIDTH)``, to which the distribution is written; None if it is not needed.
        classes: number of classes.
    """
    pixels, width = energies.shape
    lanes = _lanes(width)
    block = max(1, _TILE // lanes // 2)
    with torch.cuda.device_of(energies):
        _update[(triton.cdiv(pixels, block),)](
            energies,
            energies if blurred is None else blurred,
            *read,
            energies if splatted is None else splatted,
            *write,
            energies if q is None else q,
            pixels,
            SLICE=blurred is not None,
            SPLAT=splatted is not None,
            KEEP=q is not None,
            CLASSES=classes,
            WIDTH=width,
            CORNERS=len(read[0]),
            LANES=lanes,
            BLOCK=block,
            enable_fp_fusion=True,
        )


@triton.jit
def _update(
    energies,
    blurred,
    slice_rows,
    slice_weights,
    splatted,
    splat_rows,
    splat_weights,
    q,
    pixels,
    SLICE: tl.constexpr,
    SPLAT: tl.constexpr,
    KEEP: tl.constexpr,
    CLASSES: tl.constexpr,
    WIDTH: tl.constexpr,
    CORNERS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    lane = tl.arange(0, LANES)[None, :]
    real = inside[:, None] & (lane < CLASSES)
    places = pixel[:, None] * WIDTH + lane
    exponents = -tl.load(energies + places, mask=real, other=0.0)
    if SLICE:
        for _ in tl.static_range(CORNERS):
            row = tl.load(slice_rows + pixel, mask=inside, other=0)
            weight = tl.load(slice_weights + pixel, mask=inside, other=0.0)
            slice_rows, slice_weights = slice_rows + pixels, slice_weights + pixels
            exponents += weight[:, None] * tl.load(blurred + _places(row, lane, WIDTH), mask=real, other=0.0)
    exponents = tl.where(lane < CLASSES, exponents, -float("inf"))
    exponentials = tl.exp(exponents - tl.max(exponents, 1)[:, None])
    share = exponentials / tl.sum(exponentials, 1)[:, None]
    if KEEP:
        tl.store(q + places, share, mask=real)
    if SPLAT:
        counts = real & (share >= _NEGLIGIBLE)
        for _ in tl.static_range(CORNERS):
            row = tl.load(splat_rows + pixel, mask=inside, other=0)
            weight = tl.load(splat_weights + pixel, mask=inside, other=0.0)
            splat_rows, splat_weights = splat_rows + pixels, splat_weights + pixels
            tl.atomic_add(splatted + _places(row, lane, WIDTH), share * weight[:, None], mask=counts, sem="relaxed")


@triton.jit
def _places(row, lane, WIDTH: tl.constexpr):
    return row.to(tl.int64)[:, None] * WIDTH + lane


def _lanes(width: int) -> int:
    return max(2, int(triton.next_power_of_2(width)))
