"""start_from: classifiers are matched by class name, and the report says what was kept and what is new."""

import pytest
import torch

from atrous.models.base import SegmentationModel
from atrous.models.create import create_model

MODELS = {
    "deeplabv3plus": {"backbone": "test_resnet", "aux": True, "channels": 16, "low_level_channels": 8, "rates": [1, 2]},
    "fcn8s": {"backbone": "test_resnet", "heads": {"geometric": 3}},
    "deeplab_aspp": {"backbone": "test_resnet"},
    "attention_to_scale": {"backbone": "test_resnet", "base": "deeplab_largefov", "scales": [1.0, 0.5]},
}


def build(name: str, names: list[str]) -> SegmentationModel:
    model = create_model(name, label_set=names, **MODELS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # FCN's scorers begin at zero
            parameter.copy_(torch.randn_like(parameter) / 10)
    return model


@pytest.mark.parametrize("name", list(MODELS))
def test_reordered_classes_keep_their_logits(name: str) -> None:
    source = build(name, ["background", "cat", "dog", "horse"])
    model = build(name, ["dog", "background", "horse", "cat"])
    report = model.start_from(source)
    assert (report.kept, report.new, report.dropped) == (("dog", "background", "horse", "cat"), (), ())
    x = torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        theirs, ours = source.outputs(x), model.outputs(x)
    for one, two in zip(theirs, ours, strict=True):
        order = slice(None) if one.name == "geometric" else [2, 0, 3, 1]
        torch.testing.assert_close(one.logits[:, order], two.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_classes_that_both_have_are_kept_and_the_others_are_new(name: str) -> None:
    source = build(name, ["background", "cat", "dog"])
    model = build(name, ["sheep", "dog", "background", "cow"])
    report = model.start_from(source)
    assert (report.kept, report.new, report.dropped) == (("dog", "background"), ("sheep", "cow"), ("cat",))
    assert str(report).endswith("classifier weights of dog, background; new: sheep, cow; dropped: cat")
    x = torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        theirs, ours = source.main_output(x).logits, model.main_output(x).logits
    torch.testing.assert_close(theirs[:, [2, 0]], ours[:, [1, 2]], rtol=1e-4, atol=1e-5)
    assert (theirs[:, 1:2] - ours[:, [0, 3]]).abs().amin((0, 2, 3)).min() > 0  # "cat" was not copied


@pytest.mark.parametrize(("theirs", "ours", "kept"), [(4, 4, 4), (5, 4, 0)])
def test_numbered_classes_are_taken_in_order_if_there_are_as_many(theirs: int, ours: int, kept: int) -> None:
    options = MODELS["deeplabv3plus"]
    source = create_model("deeplabv3plus", num_classes=theirs, **options)
    model = create_model("deeplabv3plus", label_set=["a", "b", "c", "d"][:ours], **options)
    assert len(model.start_from(source).kept) == kept


def test_an_auxiliary_head_that_the_source_does_not_have_is_reported() -> None:
    options = {key: value for key, value in MODELS["deeplabv3plus"].items() if key != "aux"}
    source = create_model("deeplabv3plus", num_classes=3, **options)
    model = create_model("deeplabv3plus", num_classes=3, aux=True, **options)
    assert "new parts: aux_classifier" in str(model.start_from(source))
