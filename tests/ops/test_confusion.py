import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from atrous.ops.confusion import confusion_matrix, confusion_matrix_reference


@st.composite
def pairs(draw):
    """Truth (with ignored pixels) and prediction of any shape, in short and long runs, and the number of classes."""
    classes = draw(st.one_of(st.integers(1, 255), st.integers(256, 1000)))
    dtype, ignore = (np.uint8, 255) if classes < 256 else (np.uint16, 65535)
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=12))
    truth = draw(arrays(dtype, shape, elements=st.one_of(st.integers(0, classes - 1), st.just(ignore))))
    prediction = draw(arrays(dtype, shape, elements=st.integers(0, classes - 1)))
    repeat = draw(st.integers(1, 9))
    return truth.repeat(repeat, axis=-1), prediction.repeat(repeat, axis=-1), classes


@settings(deadline=None)  # the first call compiles
@given(pairs())
def test_the_kernel_counts_what_the_reference_counts(pair):
    matrix = confusion_matrix(*pair)
    assert matrix.dtype == np.int64
    assert (matrix == confusion_matrix_reference(*pair)).all()


def test_rows_are_truth_and_columns_are_prediction():
    truth = np.array([[0, 0, 1], [255, 2, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
    assert confusion_matrix(truth, prediction, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_only_ignored_pixels_give_zeros():
    ignored = np.full((5, 7), 255, np.uint8)
    assert not confusion_matrix(ignored, np.zeros_like(ignored), 4).any()
    assert not confusion_matrix(ignored[:0], ignored[:0], 4).any()


def test_what_is_predicted_for_an_ignored_pixel_does_not_matter():
    truth = np.array([255, 1, 255], np.uint8)
    assert confusion_matrix(truth, truth, 2).tolist() == [[0, 0], [0, 1]]


def test_views_that_start_anywhere_in_memory_are_counted():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 40, 41), dtype=np.uint8)
    for cut in (np.s_[3:, 1:], np.s_[::2, ::-1], np.s_[0, 3:]):
        expected = confusion_matrix_reference(truth[cut], prediction[cut], 5)
        assert (confusion_matrix(truth[cut], prediction[cut], 5) == expected).all()
    assert confusion_matrix(truth.T, prediction.T, 5).tolist() == confusion_matrix(truth, prediction, 5).tolist()


@pytest.mark.parametrize("count", [confusion_matrix, confusion_matrix_reference])
def test_values_out_of_range_are_named(count):
    good = np.zeros((4, 5), np.uint8)
    bad = good.copy()
    bad[1, :3] = 21
    with pytest.raises(
        ValueError, match="ground truth contains the value 21 in 3 pixels; it must be a class, 0 to 20, or 255"
    ):
        count(bad, good, 21)
    with pytest.raises(
        ValueError,
        match="prediction contains the value 21 in 3 pixels that are not ignored; it must be a class, 0 to 20",
    ):
        count(good, bad, 21)
    with pytest.raises(ValueError, match="prediction contains the value 255"):
        count(good, np.full_like(good, 255), 21)


def test_wrong_inputs_are_refused():
    mask = np.zeros((2, 3), np.uint8)
    with pytest.raises(TypeError, match="ground truth must be uint8, not int64"):
        confusion_matrix(mask.astype(np.int64), mask, 2)
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrix(mask, mask.T, 2)
    with pytest.raises(ValueError, match="num_classes must be 1 to 65535, not 65536"):
        confusion_matrix(mask, mask, 65536)


@pytest.mark.slow  # it imports torch once more
def test_metrics_and_labelmap_do_not_load_numba_until_they_work():
    code = "import sys, atrous, atrous.evaluation.metrics, atrous.ops.labelmap.op; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
