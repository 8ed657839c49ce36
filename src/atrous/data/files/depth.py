"""HHA: depth as an image of three channels (Gupta et al., ECCV 2014, arXiv 1407.5736, section 3).

Horizontal disparity, height above ground, and the angle between the surface's normal and gravity. Scales, window
sizes, thresholds and iterations are those of the authors' code (github.com/s-gupta/rcnn-depth, ``saveHHA.m`` and
``processDepthImage.m``), which made the HHA images of FCN's NYUDv2. Those images were not available for comparison:
tests show that heights, angles and disparities of a synthetic room are right. Two differences are known: the authors
fit normals to measured depth and use filled depth for the rest, while here a pixel has depth or has none; and theirs
count pixels from 1, here from 0, also in the camera matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

Floats = NDArray[np.float64]

FINE, COARSE = 3, 10
"""Pixels on each side of the windows in which normals are fitted: for the angles, and for the direction of gravity."""
ROUNDS = ((45.0, 5), (15.0, 5))
"""Degrees within which a normal counts as along or across gravity, and iterations with it."""
TIE = 1e-6
"""The share of normals that must differ for one direction of gravity to be better than another."""
DISPARITY = 31_000
NEAREST_CM = 100
LOWEST_CM, EYE_LEVEL_CM = 90, 130
"""If nothing is 90 cm below the camera, the ground is out of view and assumed to be 130 cm below it."""
_ANGLE_OFFSET = 128 - 90


def encode_hha(depth_m: NDArray[np.floating], intrinsics: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Encode depth as HHA.

    Args:
        depth_m: distance along the optical axis in metres, ``(H, W)``; 0, negative or not finite where there is none.
            Networks were trained on filled depth, as NYUDv2 contains.
        intrinsics: camera matrix ``(3, 3)`` in pixels; the centre of the first pixel is (0, 0).

    Returns:
        ``(H, W, 3)`` uint8: 31000 / depth in cm, nearer than 1 m as 1 m (310 is cut to 255); height above the lowest
        point in cm; angle between the normal and gravity in degrees + 38, so that a floor is 38, a wall 128, a ceiling
        218, and a surface without a clear normal 218 too. A pixel without depth is 0 in all channels.

    Raises:
        InputError: depth is not ``(H, W)``, no pixel has depth, or not a camera matrix.
    """
    depth, camera = np.asarray(depth_m, np.float64), np.asarray(intrinsics, np.float64)
    if depth.ndim != 2:
        raise InputError(f"expected depth (H, W) in metres, got an array of shape {depth.shape}")
    if camera.shape != (3, 3) or not (camera[0, 0] > 0 and camera[1, 1] > 0):
        raise InputError(f"expected a camera matrix (3, 3) with focal lengths in pixels on its diagonal, got {camera}")
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise InputError("no pixel has depth; expected metres, with 0 where there is none")
    depth = 100 * np.where(known, depth, 0)
    rays = _rays(depth.shape, camera)
    gravity = gravity_direction(surface_normals(depth, rays, COARSE))
    height = -(depth[..., None] * rays) @ gravity
    lowest = height[known].min()
    height -= lowest if lowest <= -LOWEST_CM else -EYE_LEVEL_CM
    cosine = np.nan_to_num(surface_normals(depth, rays, FINE) @ gravity, nan=-1.0)
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    channels = (DISPARITY / np.maximum(depth, NEAREST_CM), height, angle + _ANGLE_OFFSET)
    image = np.stack(channels, -1).round().clip(0, 255)
    return (image * known[..., None]).astype(np.uint8)


def surface_normals(depth: Floats, rays: Floats, radius: int) -> Floats:
    """The normal ``(H, W, 3)`` of the plane through the points around each pixel, away from the camera; not a number
    where there are too few points or no depth.

    A plane n · p = 1 through points p = z r, of depth z on rays r = (x, y, 1), has n · r = 1 / z: least squares in
    inverse depth.
    """
    known = depth > 0
    r = np.where(known[..., None], rays, 0)
    inverse = np.divide(1, depth, out=np.zeros_like(depth), where=known)
    products = [r[..., i] * r[..., j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    xx, xy, xz, yy, yz, zz = (_window_sum(product, radius) for product in products)
    right = [_window_sum(r[..., i] * inverse, radius) for i in range(3)]
    rows = [np.stack(row, -1) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
    # The adjoint of a symmetric matrix: its inverse but for the determinant, which a direction can do without.
    normal = sum(np.cross(rows[i - 2], rows[i - 1]) * right[i][..., None] for i in range(3))
    assert isinstance(normal, np.ndarray)
    length = np.linalg.norm(normal, axis=-1)
    enough = known & (_window_sum(known.astype(np.float64), radius) > 3)
    normal = np.divide(
        normal, length[..., None], out=np.full_like(normal, np.nan), where=(enough & (length > 0))[..., None]
    )
    outward: Floats = normal * np.where((normal * rays).sum(-1) < 0, -1, 1)[..., None]
    return outward


def gravity_direction(normals: Floats) -> Floats:
    """The direction of gravity ``(3,)`` in the camera's axes (right, down, forward): the one that most normals are
    along or across, found by sorting them and fitting in turn, from straight down.
    """
    n = normals.reshape(-1, 3)
    n = n[np.isfinite(n[:, 0])]
    gravity = np.array([0.0, 1.0, 0.0])
    for threshold, iterations in ROUNDS:
        for _ in range(iterations):
            along = np.abs(n @ gravity)
            floors = n[along > np.cos(np.radians(threshold))]
            walls = n[along < np.sin(np.radians(threshold))]
            if not len(floors) + len(walls):
                return gravity
            # Walls that all face one way leave every direction along them as good: the nearest to the last is taken.
            nearest = TIE * len(n) * np.outer(gravity, gravity)
            _, vectors = np.linalg.eigh(walls.T @ walls - floors.T @ floors - nearest)
            gravity = vectors[:, 0] * (1 if vectors[:, 0] @ gravity >= 0 else -1)
    return gravity


def _rays(shape: tuple[int, ...], camera: Floats) -> Floats:
    """The point at depth 1 on the ray through each pixel, ``(H, W, 3)``."""
    v, u = np.indices(shape, dtype=np.float64)
    return np.stack([(u - camera[0, 2]) / camera[0, 0], (v - camera[1, 2]) / camera[1, 1], np.ones(shape)], -1)


def _window_sum(values: Floats, radius: int) -> Floats:
    """Sums over squares of 2 × radius + 1 pixels, cut off at the borders."""
    for axis in (0, 1):
        total = np.cumsum(values, axis)
        total = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis)
        size = values.shape[axis]
        place = np.arange(size)
        values = total.take(np.minimum(place + radius + 1, size), axis) - total.take(
            np.maximum(place - radius, 0), axis
        )
    return values
