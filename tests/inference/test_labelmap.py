import pytest
import torch

from atrous.grid import PIXELS, Grid, resample
from atrous.ops.labelmap import op as labelmap
from atrous.ops.labelmap.op import logits_to_labels

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]
GRIDS = [Grid(4, 0), Grid(4, 1.5), Grid(8, 3.5), Grid(5.3, -2), Grid(1, 0)]


def sampled(scores, grid, rows, strip):
    return resample(scores, grid, (rows, PIXELS), strip)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(1, 1), (30, 47), (70, 20)])
def test_labels_are_the_best_class_of_the_resampled_scores(device, grid, size):
    scores = torch.randn(2, 6, 9, 11, device=device)
    labels = logits_to_labels(scores, grid, size)
    full = resample(scores, grid, PIXELS, size)
    chosen = full.gather(1, labels[:, None].long())[:, 0]
    assert labels.shape == (2, *size)
    assert labels.dtype == torch.uint8
    assert labels.device == scores.device
    assert (full.amax(dim=1) - chosen).max() < 1e-5  # rounding ties


@pytest.mark.parametrize("grid", GRIDS)
def test_strips_give_what_the_kernel_gives(monkeypatch, grid):
    monkeypatch.setattr(labelmap, "_STRIP_VALUES", 2 * 6 * 47 * 4)  # four rows at a time
    scores = torch.randint(-3, 4, (2, 6, 9, 11)).float()
    strips = labelmap.in_strips(lambda *place: sampled(scores, grid, *place), scores, (30, 47))
    differing = strips != logits_to_labels(scores, grid, (30, 47))
    assert differing.float().mean() <= (
        0.01 if grid.stride == 5.3 else 0
    )  # integers tie; elsewhere arithmetic is exact


def test_strips_of_a_single_position_fill_the_image():
    scores = torch.tensor([0.0, 2, 1]).view(1, 3, 1, 1)
    assert (labelmap.in_strips(lambda *place: sampled(scores, Grid(8, 3), *place), scores, (5, 6)) == 1).all()


def test_scores_of_any_float_type_and_memory_format_are_taken():
    scores = torch.randn(1, 4, 6, 7).bfloat16()
    expected = logits_to_labels(scores.float(), Grid(4, 0), (21, 25))
    assert torch.equal(logits_to_labels(scores, Grid(4, 0), (21, 25)), expected)
    channels_last = scores.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(logits_to_labels(channels_last, Grid(4, 0), (21, 25)), expected)
