"""HHA of rooms drawn from planes: angles, heights and disparities come out as they were drawn."""

import numpy as np
import pytest

from atrous.data.files.depth import COARSE, encode_hha, gravity_direction, surface_normals

SIZE = (96, 128)
CAMERA = np.array([[110.0, 0, 63.5], [0, 110, 47.5], [0, 0, 1]])
EYE = 1.6
"""Metres between the camera and the floor."""


def rays() -> np.ndarray:
    v, u = np.indices(SIZE)
    return np.stack([(u - 63.5) / 110, (v - 47.5) / 110, np.ones(SIZE)], -1)


def tilted(pitch: float, roll: float) -> np.ndarray:
    """The axes of the room (right, down, forward) in the camera's, which looks down by ``pitch`` degrees."""
    p, r = np.radians([pitch, roll])
    around_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    around_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return around_z @ around_x


def room(pitch: float, roll: float = 0, noise: float = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth in metres, which surface each pixel shows (floor 0, wall before 1, wall beside 2, ceiling 3), and the
    height of its point above the floor.
    """
    axes = tilted(pitch, roll)
    _, down, forward = axes.T
    planes = [(down, EYE), (forward, 4.0), (axes[:, 0], 2.0), (-down, 1.0)]
    with np.errstate(divide="ignore"):
        hits = np.stack([np.where(rays() @ n > 1e-6, d / (rays() @ n), np.inf) for n, d in planes])
    depth = hits.min(0)
    depth *= 1 + noise * np.random.default_rng(0).normal(size=SIZE)
    return depth, hits.argmin(0), EYE - depth * (rays() @ down)


def inside(surface: np.ndarray, which: int, margin: int = 4) -> np.ndarray:
    """Pixels around which there is nothing else."""
    found = surface == which
    for axis in (0, 1):
        found = np.min([np.roll(found, shift, axis) for shift in range(-margin, margin + 1)], 0)
    found[:margin], found[-margin:], found[:, :margin], found[:, -margin:] = (False,) * 4
    return found.astype(bool)


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (15, 0), (30, 5), (-10, -8)])
def test_angles_heights_and_disparities_are_those_of_the_room(pitch: float, roll: float) -> None:
    depth, surface, height = room(pitch, roll)
    hha = encode_hha(depth, CAMERA)
    assert hha.shape == (*SIZE, 3)
    assert hha.dtype == np.uint8
    np.testing.assert_array_equal(hha[..., 0], np.minimum(255, (310 / np.maximum(depth, 1)).round()))
    above = 100 * (height - height.min())  # the lowest point in sight, which is the floor but for the last room
    assert np.abs(hha[..., 1] - above.clip(0, 255)).max() <= 4  # edges turn gravity by up to a degree
    for which, angle in ((0, 38), (1, 128), (2, 128), (3, 218)):
        found = hha[..., 2][inside(surface, which)].astype(int)
        assert found.size or which == (3 if pitch > 0 else 0)
        assert (np.abs(found - angle) <= 1).all()


def test_gravity_is_found_in_noise() -> None:
    depth, _, _ = room(20, 6, noise=0.003)
    gravity = gravity_direction(surface_normals(100 * depth, rays(), COARSE))
    true = tilted(20, 6)[:, 1]
    assert np.degrees(np.arccos(gravity @ true)) < 1.5
    assert gravity @ gravity == pytest.approx(1)


def test_where_the_ground_is_out_of_sight_the_camera_is_130_cm_above_it() -> None:
    hha = encode_hha(np.full(SIZE, 2.0), CAMERA)  # a wall, straight ahead
    assert (hha[..., 0] == 155).all()
    assert (hha[..., 2] == 128).all()
    middle = hha[47:49, :, 1]
    assert np.abs(middle.astype(int) - 130).max() <= 1
    assert hha[0, 0, 1] > 130 > hha[-1, 0, 1]


def test_pixels_without_depth_are_zero_and_disturb_no_others() -> None:
    depth, surface, _ = room(15)
    whole = encode_hha(depth, CAMERA)
    random = np.random.default_rng(0)
    holes = random.random(SIZE) < 0.2
    broken = np.where(holes, random.choice([0, -1, np.nan, np.inf], SIZE), depth)
    hha = encode_hha(broken, CAMERA)
    assert not hha[holes].any()
    kept = inside(surface, 0) | inside(surface, 1)
    kept &= ~holes
    assert np.abs(hha[kept].astype(int) - whole[kept]).max() <= 1
    alone = np.zeros(SIZE)
    alone[10, 10] = 2.0  # a pixel whose normal can't be told
    assert encode_hha(alone, CAMERA)[10, 10, 2] == 218


def test_what_is_no_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected depth \(H, W\) in metres, got an array of shape \(4, 4, 3\)"):
        encode_hha(np.ones((4, 4, 3)), CAMERA)
    with pytest.raises(ValueError, match="no pixel has depth"):
        encode_hha(np.zeros((4, 4)), CAMERA)
    for camera in (np.eye(4), np.zeros((3, 3))):
        with pytest.raises(ValueError, match="expected a camera matrix"):
            encode_hha(np.ones((4, 4)), camera)
