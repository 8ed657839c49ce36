"""Attention to Scale: the head, its weights, and what they do to the scores."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from atrous.grid import Grid
from atrous.models import create_model
from atrous.models.attention_to_scale import AttentionToScale

BASES = ["fcn8s", "deeplab_largefov", "deeplabv3", "deeplabv3plus"]


def attentive(base: str = "deeplab_largefov", **options: object) -> AttentionToScale:
    model = create_model("attention_to_scale", base=base, backbone="resnet18", num_classes=4, **options)
    assert isinstance(model, AttentionToScale)
    for parameter in model.attention.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.mark.parametrize(("scales", "count"), [((1, 0.5), 9_438_722), ((1, 0.75, 0.5), 14_157_827)])
def test_parameter_counts(scales: tuple[float, ...], count: int) -> None:
    with torch.device("meta"):
        model = create_model("attention_to_scale", backbone="vgg16", num_classes=21, scales=scales)
    assert sum(p.numel() for p in model.parameters()) == 20_505_429 + count
    assert model.output_stride == 8


@pytest.mark.parametrize("base", BASES)
def test_weights_sum_to_one_everywhere(base: str) -> None:
    model = attentive(base)
    with torch.no_grad():
        merged = model.main_output(torch.randn(2, 3, 65, 81))
    weights = merged.attention
    assert weights.shape == (2, 3, *merged.logits.shape[-2:])
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


def test_scores_are_the_weighted_sum_over_scales() -> None:
    model = attentive()
    x = torch.randn(1, 3, 129, 97)
    with torch.no_grad():
        merged = model.main_output(x)
        weights = merged.attention
        maps = [o.logits for o in model.outputs(x)[1:]]
    size = merged.logits.shape[-2:]
    aligned = [F.interpolate(m, size=size, mode="bilinear", align_corners=True) for m in maps]
    expected = sum(weights[:, [s]] * m for s, m in enumerate(aligned))  # the same weight for all classes
    torch.testing.assert_close(merged.logits, expected, rtol=1e-4, atol=1e-6)
    assert merged.grid == Grid(8, 0)


@pytest.mark.parametrize("base", BASES)
def test_equal_weights_are_the_average(base: str) -> None:
    model = attentive(base)
    nn.init.zeros_(model.attention[2].weight)
    nn.init.constant_(model.attention[2].bias, 3.0)
    x = torch.randn(1, 3, 66, 50)
    with torch.no_grad():
        attended = model(x)
        model.merge = "average"
        torch.testing.assert_close(attended, model(x))


def test_new_layers_start_as_an_average_nearly() -> None:
    model = create_model("attention_to_scale", backbone="resnet18", num_classes=4).eval()
    assert isinstance(model, AttentionToScale)
    with torch.no_grad():
        weights = model.main_output(torch.randn(1, 3, 65, 65)).attention
    assert (weights - 1 / 3).abs().max() < 0.2


def test_attention_and_network_learn_together() -> None:
    model = attentive(extra_supervision=False).train()
    (merged,) = model.outputs(torch.randn(2, 3, 65, 65))
    merged.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.attention.parameters())
    assert all(p.grad is not None for p in model.base.parameters())


def test_attention_is_new_for_the_optimizer() -> None:
    model = attentive()
    inherited = {id(p) for p in model.inherited()}
    assert not any(id(p) in inherited for p in model.attention.parameters())
