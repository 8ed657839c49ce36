"""Labels from coarse logits: the kernel on a CPU, strips and the plain reference, beside full-size logits by numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atrous.grid import PIXELS, Grid, resample
from atrous.ops.labelmap import op
from atrous.ops.labelmap.op import logits_to_labels, logits_to_labels_reference

sides = st.integers(1, 7)
sizes = st.tuples(st.integers(1, 50), st.integers(1, 50))


def labels_of(logits, stride, offset, size, convert=logits_to_labels):
    """The labels of one image as an array."""
    return convert(torch.from_numpy(logits)[None], Grid(stride, offset), size)[0].numpy()


def full_size_logits(logits, stride, offset, size):
    """Bilinear logits ``(C, H, W)`` of every pixel, in double precision; an implementation apart from the package's."""
    full = logits.astype(np.float64)
    for axis in (1, 2):
        last = full.shape[axis] - 1
        place = np.clip((np.arange(size[axis - 1]) - offset) / stride, 0, last)
        before = np.floor(place).astype(np.int64)
        share = (place - before).reshape((-1, 1) if axis == 1 else (1, -1))
        full = full.take(before, axis) * (1 - share) + full.take(np.minimum(before + 1, last), axis) * share
    return full


def ramps(classes, height, width, seed=0):
    """Smooth logits with boundaries between large areas, as networks give them."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, 4, 5)).astype(np.float32)
    return full_size_logits(coarse, max(height, width) / 3.5, 1.3, (height, width)).astype(np.float32)


@settings(deadline=None)  # the first call compiles
@given(st.data(), st.integers(1, 6), sides, sides, st.sampled_from([0.5, 1, 2, 4, 16]), st.integers(-9, 20), sizes)
def test_labels_equal_the_reference_where_arithmetic_is_exact(data, classes, height, width, stride, offset, size):
    """Small integers and powers of two are exact in float32, so ties are real ones and the lowest class takes them."""
    integers = st.integers(-3, 3).map(float)
    logits = data.draw(arrays(np.float32, (classes, height, width), elements=integers))
    labels = labels_of(logits, stride, offset / 2, size)
    assert labels.dtype == np.uint8
    assert (labels == full_size_logits(logits, stride, offset / 2, size).argmax(0)).all()
    assert (labels == labels_of(logits, stride, offset / 2, size, logits_to_labels_reference)).all()


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 9999), st.integers(1, 30), sides, sides, st.floats(0.3, 90), st.floats(-30, 30), sizes)
def test_no_other_class_is_ahead_by_more_than_rounding(seed, classes, height, width, stride, offset, size):
    logits = np.random.default_rng(seed).normal(size=(classes, height, width)).astype(np.float32)
    labels = labels_of(logits, stride, offset, size)
    full = full_size_logits(logits, stride, offset, size)
    chosen = np.take_along_axis(full, labels[None].astype(np.int64), axis=0)[0]
    # Coordinates are exact to a float32 share of a cell (6e-8) and logits are of the order of 1.
    assert (full.max(axis=0) - chosen).max() < 3e-6


@pytest.mark.parametrize(("stride", "offset"), [(4, 0), (4, 1.5), (8, 3.5), (3.3, -2.0), (150, 7)])
def test_smooth_maps_equal_the_reference(stride, offset):
    logits = ramps(9, 31, 23)
    size = (140, 333)
    expected = full_size_logits(logits, stride, offset, size).argmax(0)
    differing = labels_of(logits, stride, offset, size) != expected
    assert differing.mean() < 1e-4  # rounding ties


def test_a_class_that_leads_at_no_corner_wins_in_the_middle():
    logits = np.array([[[9, 0], [0, 0]], [[0, 0], [0, 9]], [[4, 4], [4, 4]]], np.float32)
    labels = labels_of(logits, 8, 0, (9, 9))
    assert (labels[0, 0], labels[4, 4], labels[8, 8]) == (0, 2, 1)


def test_equal_logits_give_the_lowest_class():
    assert not labels_of(np.ones((5, 3, 4), np.float32), 4, 1.5, (12, 16)).any()
    logits = np.stack([np.zeros((3, 4)), np.ones((3, 4)), np.ones((3, 4))]).astype(np.float32)
    assert (labels_of(logits, 4, 1.5, (12, 16)) == 1).all()


def test_a_smaller_size_is_a_crop():
    logits = ramps(5, 9, 11)
    whole = labels_of(logits, 4, 0, (33, 41))
    assert (labels_of(logits, 4, 0, (7, 30)) == whole[:7, :30]).all()


def test_labels_go_on_beyond_the_outermost_positions():
    logits = ramps(5, 6, 6)
    whole = labels_of(logits, 4, 5, (60, 60))
    assert (whole[:5] == whole[5]).all()
    assert (whole[26:] == whole[25]).all()
    assert (whole[:, 26:] == whole[:, 25:26]).all()


def test_all_255_classes_can_win():
    logits = np.eye(255, dtype=np.float32).reshape(255, 15, 17)
    assert (labels_of(logits, 1, 0, (15, 17)).ravel() == np.arange(255)).all()


@pytest.mark.parametrize("convert", [logits_to_labels, logits_to_labels_reference])
def test_more_classes_give_labels_of_16_bits(convert):
    logits = np.eye(900, dtype=np.float32).reshape(900, 30, 30)
    labels = labels_of(logits, 1, 0, (30, 30), convert)
    assert labels.dtype == np.uint16
    assert (labels.ravel() == np.arange(900)).all()


def test_memory_order_does_not_matter():
    logits = ramps(5, 8, 9)
    channels_last = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert (labels_of(channels_last, 4, 0, (29, 33)) == labels_of(logits, 4, 0, (29, 33))).all()


@pytest.mark.parametrize("convert", [logits_to_labels, logits_to_labels_reference])
def test_wrong_logits_are_refused(convert):
    with pytest.raises(TypeError, match=r"floating, not torch\.int64"):
        convert(torch.zeros(1, 2, 3, 3, dtype=torch.int64), Grid(4, 0), (9, 9))
    for shape in ((2, 3, 3), (1, 0, 3, 3), (1, 65536, 1, 1), (1, 2, 0, 3)):
        with pytest.raises(ValueError, match="1 to 65535 classes"):
            convert(torch.zeros(shape), Grid(4, 0), (9, 9))


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]
GRIDS = [Grid(4, 0), Grid(4, 1.5), Grid(8, 3.5), Grid(5.3, -2), Grid(1, 0)]


def sampled(logits, grid, rows, strip):
    return resample(logits, grid, (rows, PIXELS), strip)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(1, 1), (30, 47), (70, 20)])
def test_labels_are_the_best_class_of_the_resampled_logits(device, grid, size):
    logits = torch.randn(2, 6, 9, 11, device=device)
    labels = logits_to_labels(logits, grid, size)
    full = resample(logits, grid, PIXELS, size)
    chosen = full.gather(1, labels[:, None].long())[:, 0]
    assert labels.shape == (2, *size)
    assert labels.dtype == torch.uint8
    assert labels.device == logits.device
    assert (full.amax(dim=1) - chosen).max() < 1e-5  # rounding ties


@pytest.mark.parametrize("grid", GRIDS)
def test_strips_give_what_the_kernel_gives(monkeypatch, grid):
    monkeypatch.setattr(op, "_STRIP_VALUES", 2 * 6 * 47 * 4)  # four rows at a time
    logits = torch.randint(-3, 4, (2, 6, 9, 11)).float()
    strips = op.labels_in_strips(lambda *place: sampled(logits, grid, *place), logits, (30, 47))
    differing = strips != logits_to_labels(logits, grid, (30, 47))
    assert differing.float().mean() <= (
        0.01 if grid.stride == 5.3 else 0
    )  # integers tie; elsewhere arithmetic is exact


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (70, 88), (71, 83), (5, 300)])
def test_positions_spread_over_the_image_give_the_labels_of_interpolate(device, size):
    logits = torch.from_numpy(ramps(6, 9, 11)).to(device)[None]
    grids = Grid.spread(9, size[0]), Grid.spread(11, size[1])
    expected = F.interpolate(logits, size, mode="bilinear").argmax(1)
    assert torch.equal(logits_to_labels(logits, grids, size).long(), expected)
    assert torch.equal(logits_to_labels_reference(logits, grids, size).long(), expected)
    strips = op.labels_in_strips(lambda *place: sampled(logits, grids, *place), logits, size)
    assert torch.equal(strips.long(), expected)


def test_strips_of_a_single_position_fill_the_image():
    logits = torch.tensor([0.0, 2, 1]).view(1, 3, 1, 1)
    assert (op.labels_in_strips(lambda *place: sampled(logits, Grid(8, 3), *place), logits, (5, 6)) == 1).all()


def test_logits_of_any_float_type_and_memory_format_are_taken():
    logits = torch.randn(1, 4, 6, 7).bfloat16()
    expected = logits_to_labels(logits.float(), Grid(4, 0), (21, 25))
    assert torch.equal(logits_to_labels(logits, Grid(4, 0), (21, 25)), expected)
    channels_last = logits.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(logits_to_labels(channels_last, Grid(4, 0), (21, 25)), expected)
