import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atrous.evaluation.trimap import trimap
from atrous.labels import IGNORE


def dilated(mask, width):
    """Pixels with a marked one in the square around them, the slow way."""
    padded = np.pad(mask, width)
    side = 2 * width + 1
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side)).any((2, 3))


def test_with_a_void_line_between_classes_the_band_is_the_published_one():
    truth = np.zeros((40, 50), np.uint8)
    truth[10:30, 15:40] = 7
    truth[9:11, 15:40] = truth[29:31, 15:40] = truth[9:31, 14:16] = truth[9:31, 39:41] = IGNORE
    for width in (1, 3, 5):
        band = dilated(truth == IGNORE, width) & (truth != IGNORE)
        assert np.array_equal(trimap(truth, width) != IGNORE, band)


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 255]))
)
def test_the_band_holds_what_has_another_label_near_it(truth):
    other = np.zeros(truth.shape, bool)
    for label in (0, 1, 255):
        other |= (truth == label) & dilated(truth != label, 1) & dilated(truth == label, 0)
    expected = np.where(other, truth, IGNORE)
    assert np.array_equal(trimap(truth, 1), expected)


def test_a_wide_band_is_everything_a_boundary_cuts():
    truth = np.zeros((6, 9), np.uint8)
    truth[3:] = 1
    assert np.array_equal(trimap(truth, 9), truth)
    assert (trimap(np.zeros((6, 9), np.uint8), 9) == IGNORE).all()
