"""Models on a GPU: scores as on the CPU, at any output stride, without the host waiting on the way."""

import copy
import functools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atrous.models import ARCHITECTURES, SegmentationModel, create_model
from atrous.models.layers import WideConv2d, conv_by_columns

from .conftest import Unwaiting

pytestmark = pytest.mark.gpu

SMALL: dict[str, dict[str, object]] = {
    "deeplabv3": {"channels": 32},
    "deeplabv3plus": {"channels": 32, "separable": True},
    "attention_to_scale": {"scales": (1, 0.5)},
}
PAPERS = ("fcn8s", "deeplab_largefov", "deeplab_msc_largefov")  # forms of their own on VGG-16


@functools.cache
def _model(name: str, backbone: str) -> SegmentationModel:
    model = create_model(name, backbone=backbone, num_classes=4, **SMALL.get(name, {}))
    for key, parameter in model.named_parameters():
        if key.startswith("score_"):  # an FCN's scorers start at zero and would say nothing
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def on(device: torch.device, name: str, backbone: str) -> SegmentationModel:
    """A copy in the memory format of prediction and training."""
    return copy.deepcopy(_model(name, backbone)).to(device).to(memory_format=torch.channels_last)


def random_images(device: torch.device | str, size: tuple[int, int] = (61, 83)) -> Tensor:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    return images.to(device).contiguous(memory_format=torch.channels_last)


def away(scores: Tensor, expected: Tensor) -> float:
    """How far scores are from what they should be, as a share of it."""
    return float((scores.float().cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("name", "backbone"),
    [*((name, "test_efficientnet") for name in sorted(ARCHITECTURES)), *((name, "vgg16") for name in PAPERS)],
)
@torch.no_grad()
def test_scores_are_the_cpus_and_the_host_does_not_wait(
    name: str, backbone: str, device: torch.device, thin: None, exact: None, unwaiting: Unwaiting
) -> None:
    expected = _model(name, backbone)(random_images("cpu"))
    model, images = on(device, name, backbone), random_images(device)
    for context in (nullcontext, unwaiting):  # at first, libraries prepare themselves
        with context():
            logits = model(images)
            with torch.autocast(device.type, torch.bfloat16):
                rough = model(images)
        assert (logits.device.type, logits.dtype, rough.dtype) == (device.type, torch.float32, torch.float32)
        assert away(logits, expected) < 1e-4  # sums in another order
        assert away(rough, expected) < 0.05  # as on the CPU


@torch.no_grad()
def test_output_stride_is_a_dial(device: torch.device, exact: None) -> None:
    model, there = _model("deeplabv3plus", "test_resnet"), on(device, "deeplabv3plus", "test_resnet")
    for stride in (8, 32, 16):
        model.output_stride = there.output_stride = stride
        assert away(there(random_images(device)), model(random_images("cpu"))) < 1e-4


def test_preprocessing_is_the_cpus(device: torch.device, unwaiting: Unwaiting) -> None:
    raw = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    model, there = _model("deeplabv3", "test_efficientnet"), raw.to(device)
    with unwaiting():
        images = model.preprocess(there)
    torch.testing.assert_close(images.cpu(), model.preprocess(raw))


def test_gradients_are_the_cpus(device: torch.device, exact: None) -> None:
    gradients = []
    for where in ("cpu", device):
        model = on(torch.device(where), "deeplabv3plus", "test_efficientnet")  # in eval mode: batch norms as they are
        torch.stack(
            [output.at((61, 83)).square().mean() for output in model.outputs(random_images(where))]
        ).sum().backward()
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]))
    assert away(gradients[1], gradients[0]) < 1e-3


@torch.no_grad()
@pytest.mark.parametrize("images_at_once", [1, 4])
def test_a_convolution_of_wide_padding_is_the_cpus(
    device: torch.device, images_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def columns(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(x))
        return conv_by_columns(x, *rest)

    monkeypatch.setattr("atrous.models.layers.conv_by_columns", columns)
    layer, x = WideConv2d(32, 16, 3, padding=12, dilation=12), torch.randn(images_at_once, 32, 17, 19)
    expected = layer(x)
    with torch.autocast(device.type, torch.bfloat16):
        found = layer.to(device)(x.to(device))
    assert found.dtype == torch.bfloat16
    assert away(found.float(), expected) < 0.05
    assert calls == ([1] if device.type == "cuda" and images_at_once == 1 else [])
