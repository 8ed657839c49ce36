import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atrous.ops.labelmap.cpu import full_size_logits, logits_to_labels, logits_to_labels_reference

sides = st.integers(1, 7)
sizes = st.tuples(st.integers(1, 50), st.integers(1, 50))


def ramps(classes, height, width, seed=0):
    """Smooth scores with boundaries between large areas, as networks give them."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, 4, 5)).astype(np.float32)
    return full_size_logits(coarse, max(height, width) / 3.5, 1.3, (height, width)).astype(np.float32)


@settings(deadline=None)  # the first call compiles
@given(st.data(), st.integers(1, 6), sides, sides, st.sampled_from([0.5, 1, 2, 4, 16]), st.integers(-9, 20), sizes)
def test_labels_equal_the_reference_where_arithmetic_is_exact(data, classes, height, width, stride, offset, size):
    """Small integers and powers of two are exact in float32, so ties are real ones and the lowest class takes them."""
    integers = st.integers(-3, 3).map(float)
    scores = data.draw(arrays(np.float32, (classes, height, width), elements=integers))
    labels = logits_to_labels(scores, stride, offset / 2, size)
    assert labels.dtype == np.uint8
    assert (labels == logits_to_labels_reference(scores, stride, offset / 2, size)).all()


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 9999), st.integers(1, 30), sides, sides, st.floats(0.3, 90), st.floats(-30, 30), sizes)
def test_no_other_class_is_ahead_by_more_than_rounding(seed, classes, height, width, stride, offset, size):
    scores = np.random.default_rng(seed).normal(size=(classes, height, width)).astype(np.float32)
    labels = logits_to_labels(scores, stride, offset, size)
    full = full_size_logits(scores, stride, offset, size)
    chosen = np.take_along_axis(full, labels[None].astype(np.int64), axis=0)[0]
    # Coordinates are exact to a float32 share of a cell (6e-8) and scores are of the order of 1.
    assert (full.max(axis=0) - chosen).max() < 3e-6


@pytest.mark.parametrize(("stride", "offset"), [(4, 0), (4, 1.5), (8, 3.5), (3.3, -2.0), (150, 7)])
def test_smooth_maps_equal_the_reference(stride, offset):
    scores = ramps(9, 31, 23)
    size = (140, 333)
    differing = logits_to_labels(scores, stride, offset, size) != logits_to_labels_reference(
        scores, stride, offset, size
    )
    assert differing.mean() < 1e-4  # rounding ties


def test_a_class_that_leads_at_no_corner_wins_in_the_middle():
    scores = np.array([[[9, 0], [0, 0]], [[0, 0], [0, 9]], [[4, 4], [4, 4]]], np.float32)
    labels = logits_to_labels(scores, 8, 0, (9, 9))
    assert (labels[0, 0], labels[4, 4], labels[8, 8]) == (0, 2, 1)


def test_equal_scores_give_the_lowest_class():
    assert not logits_to_labels(np.ones((5, 3, 4), np.float32), 4, 1.5, (12, 16)).any()
    scores = np.stack([np.zeros((3, 4)), np.ones((3, 4)), np.ones((3, 4))]).astype(np.float32)
    assert (logits_to_labels(scores, 4, 1.5, (12, 16)) == 1).all()


def test_a_smaller_size_is_a_crop():
    scores = ramps(5, 9, 11)
    whole = logits_to_labels(scores, 4, 0, (33, 41))
    assert (logits_to_labels(scores, 4, 0, (7, 30)) == whole[:7, :30]).all()


def test_labels_go_on_beyond_the_outermost_positions():
    scores = ramps(5, 6, 6)
    whole = logits_to_labels(scores, 4, 5, (60, 60))
    assert (whole[:5] == whole[5]).all()
    assert (whole[26:] == whole[25]).all()
    assert (whole[:, 26:] == whole[:, 25:26]).all()


def test_all_255_classes_can_win():
    scores = np.eye(255, dtype=np.float32).reshape(255, 15, 17)
    assert (logits_to_labels(scores, 1, 0, (15, 17)).ravel() == np.arange(255)).all()


def test_memory_order_does_not_matter():
    scores = ramps(5, 8, 9)
    channels_last = np.ascontiguousarray(scores.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert (logits_to_labels(channels_last, 4, 0, (29, 33)) == logits_to_labels(scores, 4, 0, (29, 33))).all()


@pytest.mark.parametrize("convert", [logits_to_labels, logits_to_labels_reference])
def test_wrong_scores_are_refused(convert):
    with pytest.raises(TypeError, match="float32, not float64"):
        convert(np.zeros((2, 3, 3)), 4, 0, (9, 9))
    for shape in ((3, 3), (0, 3, 3), (256, 3, 3), (2, 0, 3)):
        with pytest.raises(ValueError, match="1 to 255 classes"):
            convert(np.zeros(shape, np.float32), 4, 0, (9, 9))
