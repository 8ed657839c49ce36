"""Boundary IoU against its definition with scipy's erosion, one class at a time."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from atrous.evaluation.boundary_iou import border_counts, border_width, borders
from atrous.labels import IGNORE


def blobs(seed, classes, height, width):
    """Regions of several sizes with ignored lines between some of them."""
    random = np.random.default_rng(seed)
    mask = np.kron(random.integers(0, classes, (4, 5)), np.ones((height // 4, width // 5))).astype(np.uint8)
    mask[random.integers(0, height, 2)] = IGNORE
    return mask


def published(mask, width):
    """A region minus its erosion by a square, with nothing outside the image (§3 of the paper)."""
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


@pytest.mark.parametrize("seed", range(4))
def test_counts_follow_the_definition(seed):
    true, predicted = blobs(seed, 4, 48, 60), blobs(seed + 9, 4, 48, 60)
    predicted[predicted == IGNORE] = 0
    counts = border_counts(true, predicted, 4)
    width = border_width(*true.shape)
    assert width == round(0.02 * np.hypot(48, 60))
    for label in range(4):
        t = published(true == label, width)
        p = published((predicted == label) & (true != IGNORE), width)
        assert counts[label].tolist() == [(t & p).sum(), t.sum(), p.sum()]


def test_borders_of_any_width_follow_the_definition():
    mask = blobs(3, 3, 24, 30)
    for width in (1, 2, 5, 40):
        kept = borders(mask, width)
        for label in (0, 1, 2):
            assert ((kept == label) == published(mask == label, width)).all()


def test_a_perfect_prediction_has_the_borders_of_the_ground_truth_whatever_it_says_of_ignored_pixels():
    true = blobs(1, 3, 48, 60)
    predicted = np.where(true == IGNORE, 2, true).astype(np.uint8)
    both, true_borders, predicted_borders = border_counts(true, predicted, 3).T
    assert (both == true_borders).all()
    assert (both == predicted_borders).all()


def test_the_tiniest_image_is_all_border():
    assert border_counts(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 2).tolist() == [[1, 1, 1], [0, 0, 0]]
