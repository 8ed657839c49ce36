"""Label maps in Triton beside full-size logits."""

import pytest
import torch

from atrous.grid import PIXELS, Grid, resample
from atrous.ops.labelmap import op as labelmap


@pytest.mark.parametrize(
    ("shape", "grid", "size"),
    [
        ((2, 19, 5, 7), Grid(8, 0), (33, 49)),
        ((1, 21, 4, 4), Grid(16, -3.5), (50, 61)),
        ((1, 2, 1, 1), Grid(32, 7.5), (5, 3)),
        ((1, 150, 6, 5), Grid(4, 1.5), (21, 17)),
        ((1, 3, 9, 130), Grid(1, 0), (9, 130)),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_labels_are_those_of_full_size_logits(device, monkeypatch, shape, grid, size, channels_last):
    monkeypatch.setattr(labelmap, "has_triton", lambda _: True)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    logits = torch.randn(shape, device=device).contiguous(memory_format=memory_format)
    labels = labelmap.logits_to_labels(logits, grid, size)
    full = resample(logits.double(), grid, PIXELS, size)
    best = full.max(1).values
    chosen = full.gather(1, labels.long()[:, None])[:, 0]
    assert labels.dtype == torch.uint8
    assert (best - chosen).max() < 1e-5


def test_among_equals_the_lowest_class_is_chosen(device, monkeypatch):
    monkeypatch.setattr(labelmap, "has_triton", lambda _: True)
    labels = labelmap.logits_to_labels(torch.ones(1, 4, 3, 3, device=device), Grid(8, 0), (17, 17))
    assert not labels.any()
