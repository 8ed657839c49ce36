"""Augmentation: image and mask stay one above the other, padding is the mean and ignored, a seed fixes the result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.data.augment import Augmentation
from atrous.data.dataset import Sample
from atrous.labels import IGNORE

FILL = (255.0, 0.0, 255.0)


def ramp(height: int, width: int) -> Sample:
    """An image whose red and green are four times the column and row; its mask is a function of them."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([4 * columns, 4 * rows, np.zeros_like(rows)], 2)
    return Sample(image, (columns % 16) * 16 + rows % 15, "ramp")  # at most 254


def warped(sample: Sample, seed: int, **options: object) -> Sample:
    return Augmentation(**{"fill": FILL, **options})(sample, np.random.default_rng(seed))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    crop=st.integers(32, 97),
    low=st.floats(0.3, 1.5),
    span=st.floats(0, 2.5),
    seed=st.integers(0, 2**31),
)
def test_mask_stays_aligned_with_its_image(
    height: int, width: int, crop: int, low: float, span: float, seed: int
) -> None:
    result = warped(ramp(height, width), seed, crop=crop, scale=(low, low + span))
    assert result.image.shape == (crop, crop, 3)
    assert result.mask.shape == (crop, crop)
    assert result.image.dtype == result.mask.dtype == np.uint8
    padding = result.mask == IGNORE
    np.testing.assert_array_equal(padding, (result.image == FILL).all(2))
    seen = ~padding
    columns, rows = (result.image[..., axis][seen] / 4 for axis in (0, 1))
    labels = result.mask[seen].astype(int)
    # The label is that of the pixel nearest to where the image was read, up to the rounding of both warps.
    apart = np.abs((columns - labels // 16 + 8) % 16 - 8), np.abs((rows - labels % 16 + 7.5) % 15 - 7.5)
    assert max(axis.max(initial=0) for axis in apart) <= 0.5 + 0.125 + 1 / 16


@settings(max_examples=40, deadline=None)
@given(height=st.integers(2, 90), width=st.integers(2, 90), factor=st.floats(0.3, 3), seed=st.integers(0, 2**31))
def test_padding_is_below_and_right_and_only_where_the_image_ends(
    height: int, width: int, factor: float, seed: int
) -> None:
    crop = 65
    mask = warped(ramp(height, width), seed, crop=crop, scale=(factor, factor)).mask
    for axis, side in ((1, height), (0, width)):
        covered = (mask != IGNORE).any(axis).sum()
        assert abs(covered - min(crop, side * factor)) <= 0.5 + 1e-9
        assert (mask != IGNORE).any(axis)[: max(covered, 0)].all()


def test_scale_one_and_exact_size_change_nothing() -> None:
    sample = ramp(60, 60)
    result = warped(sample, 0, crop=60, scale=(1, 1), flip=False)
    np.testing.assert_array_equal(result.image, sample.image)
    np.testing.assert_array_equal(result.mask, sample.mask)


def test_flip_mirrors_exactly_and_about_every_second_image() -> None:
    sample = ramp(60, 60)
    mirrored = [not np.array_equal(warped(sample, s, crop=60, scale=(1, 1)).mask, sample.mask) for s in range(200)]
    assert 70 < sum(mirrored) < 130
    result = warped(sample, mirrored.index(True), crop=60, scale=(1, 1))
    np.testing.assert_array_equal(result.mask, sample.mask[:, ::-1])
    np.testing.assert_array_equal(result.image, sample.image[:, ::-1])


def test_crops_reach_every_corner_of_the_image() -> None:
    sample = ramp(60, 60)
    corners = np.array([warped(sample, s, crop=32, scale=(1, 1), flip=False).image[0, 0, :2] for s in range(300)]) / 4
    assert corners.min() < 1
    assert corners.max() > 27


def test_the_same_generator_gives_the_same_sample() -> None:
    options = {"crop": 48, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 20.0}
    first, again, other = (warped(ramp(50, 40), seed, **options) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


def test_colours_change_but_the_mask_and_the_padding_do_not() -> None:
    plain = warped(ramp(40, 40), 3, crop=65)
    colourful = warped(ramp(40, 40), 3, crop=65, brightness=0.5, contrast=0.5, saturation=1.0, hue=180.0)
    np.testing.assert_array_equal(plain.mask, colourful.mask)
    padding = plain.mask == IGNORE
    assert padding.any()
    np.testing.assert_array_equal(plain.image[padding], colourful.image[padding])
    assert not np.array_equal(plain.image, colourful.image)


def test_grey_stays_grey_under_saturation_and_hue() -> None:
    grey = Sample(np.repeat(np.arange(240, dtype=np.uint8).reshape(12, 20, 1), 3, 2), np.zeros((12, 20), np.uint8), "g")
    result = warped(grey, 1, crop=12, scale=(1, 1), flip=False, saturation=1.0, hue=180.0).image.astype(int)
    assert np.ptp(result, axis=2).max() <= 1


def test_the_sample_given_is_left_as_it_was() -> None:
    sample = ramp(30, 30)
    before = sample.image.copy(), sample.mask.copy()
    warped(sample, 0, crop=65, brightness=0.5)
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.mask, before[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_odd_images_are_warped(size: tuple[int, int]) -> None:
    sample = Sample(np.full((*size, 3), 50, np.uint8), np.zeros(size, np.uint8), "odd")
    result = warped(sample, 0, crop=33)
    assert set(np.unique(result.mask)) <= {0, IGNORE}
    assert (result.image[result.mask == 0] == 50).all()


def test_a_whole_image_stays_itself_or_is_scaled_and_mirrored() -> None:
    random = np.random.default_rng(0)
    image, mask = random.integers(0, 256, (7, 11, 3), np.uint8), random.integers(0, 4, (7, 11), np.uint8)
    same = Augmentation(None, (1.0, 1.0), flip=False)(Sample(image, mask, "a"), random)
    assert np.array_equal(same.image, image)
    assert np.array_equal(same.mask, mask)
    larger = Augmentation(None, (2.0, 2.0))(Sample(image, mask, "a"), random)
    assert larger.image.shape == (14, 22, 3)
    assert larger.mask.shape == (14, 22)


def test_further_masks_and_channels_go_with_the_image_and_keep_their_colours() -> None:
    random = np.random.default_rng(0)
    sample = ramp(50, 60)
    deep = random.integers(0, 255, (50, 60, 3), np.uint8)
    six = Sample(np.dstack([sample.image, deep]), sample.mask, "six", {"shape": sample.mask // 2})
    jitter = {"brightness": 0.5, "hue": 90.0, "crop": 65, "fill": (*FILL, 7.0, 8.0, 9.0)}
    result = warped(six, 3, **jitter)
    colored = warped(sample, 3, **{**jitter, "fill": FILL})
    np.testing.assert_array_equal(result.image[..., :3], colored.image)
    inside = result.mask != IGNORE
    np.testing.assert_array_equal(result.auxiliary_masks["shape"][inside], result.mask[inside] // 2)
    assert (result.auxiliary_masks["shape"][~inside] == IGNORE).all()
    uncolored = warped(Sample(deep, sample.mask, "deep"), 3, **{**jitter, "fill": (7.0, 8.0, 9.0)}, colored=False)
    np.testing.assert_array_equal(uncolored.image, result.image[..., 3:])
