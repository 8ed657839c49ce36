"""Models and backbones of one's own, by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from atrous.errors import InputError, InputTypeError
from atrous.labels import LabelSet
from atrous.models import SegmentationModel, create_model, load, register_backbone, register_model
from atrous.models.backbones import Backbone, TimmBackbone
from atrous.models.registry import ARCHITECTURES, BACKBONES


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for registry in (ARCHITECTURES, BACKBONES):
        for store in ("_entries", "_owners"):
            monkeypatch.setattr(registry, store, dict(getattr(registry, store)))


class Linear(SegmentationModel):
    """A classifier on the last feature."""

    def __init__(self, backbone: Backbone, label_set: LabelSet, bias: bool) -> None:
        super().__init__(backbone, label_set)
        self.classifier = nn.Conv2d(backbone.channels[-1], len(label_set), 1, bias=bias)

    def classify(self, embedding: list[Tensor]) -> Tensor:
        return self.classifier(embedding[0])


def linear(*, backbone: Backbone, label_set: LabelSet, bias: bool, depth: int = 1) -> Linear:
    assert depth == 1
    return Linear(backbone, label_set, bias)


def test_a_registered_model_is_built_saved_and_loaded(tmp_path: Path) -> None:
    assert register_model("linear", output_stride=8)(linear) is linear
    model = create_model("linear", backbone="test_efficientnet", num_classes=3, bias=False).eval()
    assert model.output_stride == 8
    assert load(model.save(tmp_path / "model")).config["options"] == {"bias": False, "depth": 1}


def test_the_options_of_a_registered_model_are_checked() -> None:
    register_model("linear")(linear)
    with pytest.raises(InputTypeError, match="'linear' needs the option bias"):
        create_model("linear", backbone="test_efficientnet", num_classes=3)
    with pytest.raises(InputError, match=r"depth: Input should be a valid integer.*, not 'deep'"):
        create_model("linear", backbone="test_efficientnet", num_classes=3, bias=True, depth="deep")


def test_a_registered_backbone_goes_under_any_model_and_is_loaded_by_its_name(tmp_path: Path) -> None:
    @register_backbone("small")
    def small(*, in_channels: int, pretrained: bool, output_stride: int) -> Backbone:
        return TimmBackbone(
            "test_efficientnet", in_channels=in_channels, pretrained=pretrained, output_stride=output_stride
        )

    model = create_model("fcn8s", backbone="small", num_classes=3, in_channels=2, output_stride=16).eval()
    assert (model.backbone.name, model.backbone.in_channels, model.output_stride) == ("small", 2, 16)
    again = load(model.save(tmp_path / "model"))
    x = torch.randn(1, 2, 50, 50)
    with torch.no_grad():
        assert torch.equal(model(x), again(x))


def test_backbones_side_by_side_go_under_any_model() -> None:
    model = create_model("deeplabv3plus", backbone="test_resnet+test_resnet", in_channels=6, num_classes=3, channels=8)
    one = create_model("deeplabv3plus", backbone="test_resnet", num_classes=3, channels=8).backbone
    assert model.backbone.channels == tuple(2 * c for c in one.channels)
    model.output_stride = 8
    assert model.eval()(torch.zeros(1, 6, 40, 33)).shape == (1, 3, 40, 33)
