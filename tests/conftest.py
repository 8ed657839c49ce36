"""Fixtures that several test files share."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from atrous.models import classics

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The development folder with real pictures, beside the checkout; without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("needs the development pictures in ../shared (see CONTRIBUTING.md)")
    return SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The papers' trunks with a sixteenth of their channels: the same geometry in a hundredth of the time."""
    build = classics._classifier

    def classifier(name: str) -> nn.Module:
        with torch.device("meta"):
            net = build(name)
        for key, layer in list(net.named_modules()):
            if isinstance(layer, nn.Conv2d):
                sides = layer.in_channels // 16 or 3, layer.out_channels // 16
                net.set_submodule(
                    key, nn.Conv2d(*sides, layer.kernel_size, layer.stride, layer.padding, groups=layer.groups)
                )
            elif isinstance(layer, nn.Linear):
                net.set_submodule(key, nn.Linear(layer.in_features // 16, layer.out_features // 16))
            elif isinstance(layer, nn.BatchNorm2d):
                net.set_submodule(key, nn.BatchNorm2d(layer.num_features // 16))
        for parameter in net.parameters():  # so that something is left of a picture after fifteen layers
            nn.init.normal_(parameter, std=math.sqrt(2 / parameter[0].numel()) if parameter.ndim > 1 else 0.1)
        return net

    monkeypatch.setattr(classics, "_classifier", classifier)
