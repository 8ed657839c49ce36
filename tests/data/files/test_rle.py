"""Run lengths of annotation tools, there and back, and as the tools themselves wrote them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atrous.data.files.rle import (
    brush_of,
    inside_brush,
    inside_rows,
    inside_runs,
    pack_runs,
    rows_of,
    runs_of,
    unpack_runs,
)
from atrous.errors import InputError

BLOBS = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(lambda shape: arrays(np.bool_, shape))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 400_000), max_size=12))
def test_packed_runs_are_the_runs(counts: list[int]) -> None:
    assert unpack_runs(pack_runs(counts)) == counts


@settings(deadline=None, max_examples=25)
@given(BLOBS)
def test_every_coding_gives_the_pixels_back(inside: np.ndarray) -> None:
    np.testing.assert_array_equal(inside_runs(runs_of(inside), *inside.shape), inside)
    np.testing.assert_array_equal(inside_rows(rows_of(inside), *inside.shape), inside)
    np.testing.assert_array_equal(inside_brush(brush_of(inside), *inside.shape), inside)


def test_what_cocos_own_program_packed() -> None:
    drawn = np.zeros((6, 7), bool)
    drawn[1:5, 2:6] = drawn[0, 6] = True
    drawn[2, 3] = False
    np.testing.assert_array_equal(inside_runs(unpack_runs("=42MO11200OM4"), 6, 7), drawn)
    assert pack_runs(runs_of(drawn)) == "=42MO11200OM4"


def test_the_mask_of_cvats_manual() -> None:
    runs = [3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3]
    inside = inside_rows(runs, 15, 13)  # a disc
    assert inside[7].all()
    assert inside.sum(1).tolist() == [5, 7, 9, 11, 11, 12, 12, 13, 13, 12, 12, 11, 9, 7, 5]
    with pytest.raises(InputError, match="runs of 195 pixels, expected 13×14 = 182"):
        inside_rows(runs, 14, 13)


def test_a_brush_with_soft_edges_is_cut_at_half() -> None:
    # 8 values: a block of 8 single values, two pixels of alpha 127 and 128
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + f"0{0:02b}{7:03b}"
    bits += "".join(f"{value:08b}" for value in (0, 0, 0, 127, 0, 0, 0, 128))
    bits += "0" * (-len(bits) % 8)
    packed = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    assert inside_brush(packed, 1, 2).tolist() == [[False, True]]
    with pytest.raises(InputError, match="end early"):
        inside_brush(packed[:-2], 1, 2)
    with pytest.raises(InputError, match="a brush of 8 values, expected 4 for each of 3×1 pixels"):
        inside_brush(packed, 1, 3)


def test_a_long_run_is_several_blocks() -> None:
    inside = np.ones((300, 400), bool)
    np.testing.assert_array_equal(inside_brush(brush_of(inside), 300, 400), inside)
