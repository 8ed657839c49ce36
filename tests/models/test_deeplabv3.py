"""DeepLabv3 and v3+."""

import pytest
import torch

from atrous.models import create_model
from atrous.models.deeplabv3 import ASPP


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "backbone", "options", "count"),
    [
        ("deeplabv3plus", "resnet101", {}, 59_344_309),  # SPEC §4.4
        ("deeplabv3plus", "xception65", {"separable": True}, 41_055_413),  # SPEC §4.4
        ("deeplabv3", "mobilenetv2_100", {"rates": ()}, 2_113_557),  # SPEC §4.6: image pooling and 1×1 only
    ],
)
def test_parameter_counts_are_the_papers(name: str, backbone: str, options: dict[str, object], count: int) -> None:
    assert parameters(create_model(name, backbone=backbone, num_classes=21, **options)) == count


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("xception41", 24_920_560), ("xception65", 37_867_312), ("xception71", 40_289_736), ("resnet101s", 42_623_936)],
)
def test_trunk_counts_are_the_papers(backbone: str, count: int) -> None:
    assert parameters(create_model("deeplabv3", backbone=backbone, num_classes=2).backbone) == count


@pytest.mark.parametrize(
    ("stride", "rates"), [(32, (3, 6, 9)), (16, (6, 12, 18)), (8, (12, 24, 36)), (4, (24, 48, 72))]
)
def test_aspp_rates_follow_the_output_stride(stride: int, rates: tuple[int, ...]) -> None:
    model = create_model("deeplabv3", backbone="resnet18", num_classes=2)
    model.output_stride = stride
    assert tuple(branch[0].dilation[0] for branch in model.aspp.atrous) == rates
    assert model.backbone.grids[-1].stride == stride


@pytest.mark.parametrize(("stride", "side"), [(16, 33), (8, 65)])
def test_sizes_at_513_are_the_papers(stride: int, side: int) -> None:
    model = create_model("deeplabv3plus", backbone="resnet18", num_classes=2, output_stride=stride).eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 513, 513)
        assert model.backbone(images)[-1].shape[-2:] == (side, side)
        scores, grid = model.scores(images)
    assert scores.shape == (1, 2, 129, 129)
    assert grid.stride == 4


def test_image_pooling_comes_first_and_sees_the_whole_map() -> None:
    aspp = ASPP(4, (6,), channels=2).eval()
    assert aspp.project[0].in_channels == 6
    for name, conv in aspp.project.named_parameters():
        if name == "0.weight":
            torch.nn.init.zeros_(conv)
            conv.data[:, :2] = 1  # only the first branch reaches the result
    with torch.no_grad():
        result = aspp(torch.randn(1, 4, 5, 7))
    assert torch.equal(result, result[..., :1, :1].expand_as(result))


def test_separable_heads_are_smaller_and_of_the_same_form() -> None:
    ordinary, separable = (
        create_model("deeplabv3plus", backbone="resnet18", num_classes=3, separable=s) for s in (False, True)
    )
    assert parameters(separable) < parameters(ordinary)
    assert separable.decoder[0][0].groups == 304  # 256 + 48 channels, each on its own
