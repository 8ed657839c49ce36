"""Overlays: what is painted, what is left alone, and a legend that hides nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.label_sets import CAMVID, VOC
from atrous.labels import LabelSet
from atrous.viz import areas, lightened, overlay, percent, side_by_side

GREY = np.full((60, 80, 3), 100, np.uint8)
MASK = np.zeros((60, 80), np.uint8)
MASK[:, 50:] = 15  # person, (192, 128, 128)


def test_areas_are_counted_largest_first_without_ignored_pixels() -> None:
    mask = MASK.copy()
    mask[0] = 255
    assert list(areas(mask, VOC).items()) == [("background", 59 * 50), ("person", 59 * 30)]


def test_areas_of_many_rows_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.viz._ROWS_AT_ONCE", 200)
    assert areas(MASK, VOC) == {"background": 3000, "person": 1800}


def test_an_unknown_label_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"labels \[15\], but the label set has the classes 0 to 1"):
        areas(MASK, LabelSet(("a", "b")))


def test_a_class_is_mixed_with_the_image_and_black_leaves_it() -> None:
    painted = overlay(GREY, MASK, VOC, alpha=0.5, legend=False, boundaries=False)
    assert painted[30, 60].tolist() == [160, 140, 140]
    assert painted[30, 10].tolist() == [100, 100, 100]


def test_dark_palettes_are_lightened_for_viewing_and_stay_distinct() -> None:
    light = lightened(VOC)
    assert light.colors[0] == (0, 0, 0)
    assert light.colors[VOC.names.index("cat")] == (128, 0, 0)
    assert len(set(light.colors)) == len(VOC)
    assert light.names == VOC.names
    assert lightened(LabelSet(("a", "b"), ((0, 0, 0), (250, 20, 0)))).colors == ((0, 0, 0), (250, 20, 0))


def test_ignored_pixels_are_left_as_photographed() -> None:
    painted = overlay(GREY, np.full((60, 80), 255, np.uint8), CAMVID, legend=False)
    np.testing.assert_array_equal(painted, GREY)


def test_boundaries_are_light_lines_where_regions_meet_and_nowhere_else() -> None:
    plain = overlay(GREY, MASK, VOC, legend=False, boundaries=False)
    lined = overlay(GREY, MASK, VOC, legend=False)
    assert set(np.nonzero((plain != lined).any(axis=(0, 2)))[0].tolist()) <= {49, 50}
    assert lined[30, 49:51].max() > 200


def test_the_image_is_not_changed() -> None:
    before = GREY.copy()
    overlay(GREY, MASK, VOC)
    np.testing.assert_array_equal(GREY, before)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 21))
def test_the_legend_hides_nothing(height: int, width: int, classes: int) -> None:
    mask = (np.arange(height * width) % classes).astype(np.uint8).reshape(height, width)
    image = np.full((height, width, 3), 100, np.uint8)
    plain = overlay(image, mask, VOC, legend=False)
    sheet = overlay(image, mask, VOC)
    left = (sheet.shape[1] - width) // 2
    np.testing.assert_array_equal(sheet[:height, left : left + width], plain)
    assert sheet.shape[0] > height
    assert sheet.shape[1] == width or width < 400


def test_a_share_is_never_rounded_to_nothing_or_everything() -> None:
    assert [percent(share) for share in (0, 0.001, 0.014, 0.5, 0.997, 1)] == ["0%", "<1%", "1%", "50%", ">99%", "100%"]


def test_side_by_side_is_three_images_wide() -> None:
    sheet = side_by_side(GREY, MASK, VOC)
    assert 3 * 80 < sheet.shape[1] < 3 * 80 + 100
    assert sheet.dtype == np.uint8


@pytest.mark.parametrize("draw", [overlay, side_by_side])
def test_a_mask_of_another_size_is_refused(draw: object) -> None:
    with pytest.raises(ValueError, match=r"image \(60, 80, 3\) and mask \(60, 79\)"):
        draw(GREY, MASK[:, 1:], VOC)  # type: ignore[operator]
