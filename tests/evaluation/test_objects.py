"""Objects against a plain reading of their definition with scipy's connected components."""

import numpy as np
import pytest
from scipy.ndimage import label as regions_of

from atrous.evaluation.objects import MIN_PIXELS, ObjectCounts, count_objects
from atrous.labels import IGNORE, LabelSet

THINGS = LabelSet(("background", "cat", "dog"))
EIGHT = np.ones((3, 3))


def plain(true, predicted, label):
    """IoU of each object with its area, and the share of each predicted region that is right."""
    t, count = regions_of(true == label, EIGHT)
    p, regions = regions_of((predicted == label) & (true != IGNORE), EIGHT)
    ious, shares = [], []
    for number in range(1, count + 1):
        mine = t == number
        if mine.sum() >= MIN_PIXELS:
            touching = np.isin(p, np.setdiff1d(p[mine], [0])) & ~((t > 0) & ~mine)
            ious.append((int(mine.sum()), (mine & touching).sum() / (mine | touching).sum()))
    for number in range(1, regions + 1):
        mine = p == number
        if mine.sum() >= MIN_PIXELS:
            shares.append((t[mine] > 0).mean())
    return ious, shares


def scene(seed, shape=(150, 170)):
    random = np.random.default_rng(seed)
    true, predicted = np.zeros((2, *shape), np.uint8)
    for mask in (true, predicted):
        for _ in range(9):
            side, top, left = random.integers(2, 70), *random.integers(0, 140, 2)
            mask[top : top + side, left : left + side] = random.integers(0, 3)
    predicted[:70] = true[:70]
    predicted[3:30:2, 5:90:3] = 1  # specks
    true[60:63] = IGNORE
    return true, predicted


@pytest.mark.parametrize("seed", range(6))
def test_counts_follow_the_definition(seed):
    true, predicted = scene(seed)
    counts = count_objects(true, predicted, THINGS)
    sizes = np.zeros((3, 3))
    for label in (1, 2):
        ious, shares = plain(true, predicted, label)
        assert counts.objects[label] == len(ious)
        assert counts.found[label] == sum(iou > 0.5 for _, iou in ious)
        assert counts.predicted[label] == len(shares)
        assert counts.right[label] == sum(share > 0.5 for share in shares)
        for area, iou in ious:
            sizes[(area >= 32**2) + (area >= 96**2)] += 1, iou, iou > 0.5
    assert counts.by_size == pytest.approx(sizes)


def test_background_has_no_objects_but_a_class_without_that_name_does():
    true = np.zeros((20, 20), np.uint8)
    assert count_objects(true, true, THINGS).objects.tolist() == [0, 0, 0]
    assert count_objects(true, true, LabelSet(("sky", "road"))).objects.tolist() == [1, 0]


def test_a_region_across_two_objects_finds_both():
    true = np.zeros((20, 41), np.uint8)
    true[5:15, :20] = true[5:15, 21:] = 1
    predicted = np.zeros_like(true)
    predicted[5:15] = 1
    counts = count_objects(true, predicted, THINGS)
    assert (counts.objects[1], counts.found[1], counts.predicted[1], counts.right[1]) == (2, 2, 1, 1)


def test_counts_add_up_and_say_what_is_undefined():
    true, predicted = scene(1)
    one = count_objects(true, predicted, THINGS)
    both = (one + one).to_dict(THINGS)
    assert both["sizes"][0]["objects"] == 2 * one.by_size[0, 0]
    assert both["recall"] == pytest.approx(one.to_dict(THINGS)["recall"])
    assert [entry["name"] for entry in both["classes"]] == ["cat", "dog"]
    nothing = ObjectCounts.none(3).to_dict(THINGS)
    assert nothing["recall"] is nothing["precision"] is nothing["sizes"][0]["iou"] is None
