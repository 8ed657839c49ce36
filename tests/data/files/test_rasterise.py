"""Outlines become pixels by the stated rules, and pixels become outlines that give back every pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atrous.data.files.outlines import Outline, keyhole, outlines_of
from atrous.data.files.rasterise import Rule, rasterise

BLOBS = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(lambda shape: arrays(np.bool_, shape))


def drawn(size: tuple[int, int], *rings: list[tuple[float, float]], rule: Rule = "centre") -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    window = rasterise([np.array(ring, np.float64) for ring in rings], *size, rule)
    window.of(mask)[window.inside] = 1
    return mask


def test_a_pixel_belongs_if_its_centre_does() -> None:
    assert drawn((6, 8), [(-9, -9), (0.6, -9), (0.6, 99), (-9, 99)]).sum(0).tolist() == [6, 0, 0, 0, 0, 0, 0, 0]
    assert drawn((6, 8), [(0, 0), (8, 0), (0, 6)]).sum(1).tolist() == [7, 6, 5, 3, 2, 1]  # half of the image
    assert not drawn((6, 8), [(2, 2), (2.4, 2), (2, 2.4)]).any()
    assert not drawn((6, 8), [(1, 1)]).any()


def test_a_centre_on_an_edge_belongs_to_one_of_the_two_that_share_it() -> None:
    corners = [(0.5, 0.5), (7.5, 2.5), (3.5, 7.5)]
    middle = (3.5, 3.5)
    parts = [drawn((9, 9), [corners[place], corners[place - 1], middle]) for place in range(3)]
    np.testing.assert_array_equal(sum(parts), drawn((9, 9), corners))


def test_a_ring_inside_another_is_a_hole() -> None:
    mask = drawn((9, 9), [(1, 1), (8, 1), (8, 8), (1, 8)], [(3, 3), (6, 3), (6, 6), (3, 6)])
    assert (mask.sum(), mask[4, 4], mask[2, 2]) == (49 - 9, 0, 1)


def test_pillows_rule_takes_the_pixels_that_the_outline_touches() -> None:
    assert drawn((6, 8), [(1, 1), (4, 1), (4, 3), (1, 3)], rule="pillow").sum() == 12
    assert drawn((6, 8), [(1, 1), (4, 1), (4, 3), (1, 3)]).sum() == 6


def redrawn(size: tuple[int, int], outlines: list[Outline], rule: Rule = "centre") -> np.ndarray:
    masks = [
        drawn(size, outline.outer.tolist(), *map(np.ndarray.tolist, outline.holes), rule=rule) for outline in outlines
    ]
    assert sum(masks, np.zeros(size, np.uint8)).max(initial=0) <= 1  # parts do not overlap
    return sum(masks, np.zeros(size, np.uint8)) == 1


@settings(deadline=None, max_examples=40)
@given(BLOBS)
def test_outlines_of_any_pixels_give_them_back(inside: np.ndarray) -> None:
    outlines = outlines_of(inside)
    np.testing.assert_array_equal(redrawn(inside.shape, outlines), inside)
    np.testing.assert_array_equal(redrawn(inside.shape, [Outline(keyhole(outline)) for outline in outlines]), inside)


@settings(deadline=None, max_examples=20)
@given(BLOBS)
def test_cocos_program_draws_outlines_without_holes_alike(inside: np.ndarray) -> None:
    pytest.importorskip("pycocotools", reason="needs atrous[coco]")
    simple = [outline for outline in outlines_of(inside) if not outline.holes]
    np.testing.assert_array_equal(redrawn(inside.shape, simple, "coco"), redrawn(inside.shape, simple))
