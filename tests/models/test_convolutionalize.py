"""A classifier that slides over a larger image."""

import copy
import gc
import weakref

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from atrous.models.surgery.output_stride import SurgeryError, convolutionalize, set_output_stride


class Small(nn.Module):
    """Built like torchvision's VGG, for images of 30 × 30, without any padding: stride 4, a map of 6 × 6."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            *(nn.Linear(8 * 36, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def test_at_its_own_size_the_one_place_has_the_classifiers_logits() -> None:
    net = Small().eval()
    x = torch.randn(2, 3, 30, 30)
    with torch.no_grad():
        logits, scores = net(x), convolutionalize(net, 30)(x)
    assert scores.shape == (2, 5, 1, 1)
    torch.testing.assert_close(scores[..., 0, 0], logits, rtol=0, atol=1e-6)


def test_a_larger_result_is_the_classifier_at_each_place() -> None:
    net = Small().eval()
    x = torch.randn(1, 3, 30 + 4 * 3, 30 + 4 * 5)
    with torch.no_grad():
        scores = convolutionalize(net, 30)(x)
        assert scores.shape == (1, 5, 4, 6)
        for row in range(4):
            for column in range(6):
                window = x[..., 4 * row : 4 * row + 30, 4 * column : 4 * column + 30]
                torch.testing.assert_close(scores[..., row, column], net(window), rtol=0, atol=1e-6)


def test_what_nobody_uses_any_more_is_freed_at_once() -> None:
    gc.collect()
    gc.disable()  # which runs at times of its own, and would hide that it is needed
    try:
        net = Small()
        result = convolutionalize(net, 30)
        weights = [weakref.ref(parameter) for module in (net, result) for parameter in module.parameters()]
        del net, result
        assert not any(weight() is not None for weight in weights)
    finally:
        gc.enable()


def test_the_classifier_stays_as_it_is_and_its_tensors_keep_their_names() -> None:
    net = Small().train()
    before = copy.deepcopy(net.state_dict())
    result = convolutionalize(net, 30)
    assert result.training
    assert net.state_dict().keys() == result.state_dict().keys() == before.keys()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert result.state_dict()["classifier.0.weight"].shape == (16, 8, 6, 6)
    shared = {p.data_ptr() for p in net.parameters()}
    assert all(p.data_ptr() in shared for p in result.parameters())


def test_dropout_goes_on_following_the_mode() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.adaptive_avg_pool2d(self.body(x), 1)
            return self.fc(nn.functional.dropout(torch.flatten(x, 1), p=0.5, training=self.training))

    result = convolutionalize(Functional().eval(), 16)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(result(x), result(x))
    result.train()
    assert not torch.equal(result(x), result(x))


# Behind the global pool: a linear layer, a convolution before it, a norm before it, and a convolution alone.
@pytest.mark.parametrize(
    "name", ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_efficientnet", "dla46_c"]
)
def test_timm_heads(name: str) -> None:
    net = timm.create_model(name, num_classes=7).eval()
    size = net.pretrained_cfg["input_size"][-1]
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        logits, scores = net(x), convolutionalize(net)(x)
    assert scores.shape[:2] == (1, 7)
    assert min(scores.shape[2:]) > 1
    if "mobilenetv3" not in name and "convnext" not in name:  # what follows their pools is not linear
        torch.testing.assert_close(scores.mean((2, 3)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", ["", "_bn"])
@pytest.mark.parametrize("library", [timm.create_model, torchvision.models.get_model])
def test_every_vgg_has_fc6_as_a_7x7_convolution(depth: int, norm: str, library) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        result = convolutionalize(library(f"vgg{depth}{norm}")).eval()
    kernels = {m.kernel_size for m in result.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 4096}
    assert kernels == {(7, 7), (1, 1)}
    assert result(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000, 1, 1)
    assert result(torch.empty(1, 3, 384, 256, device="meta")).shape == (1, 1000, 6, 2)


def test_both_operations_go_together() -> None:
    net = timm.create_model("test_resnet", num_classes=7).eval()
    sliding = convolutionalize(net)
    x = torch.randn(1, 3, 129, 129)
    with torch.no_grad():
        coarse = sliding(x)
        dense = set_output_stride(sliding, 8)(x)
    assert (coarse.shape[-1], dense.shape[-1]) == (5, 17)
    torch.testing.assert_close(dense[..., ::4, ::4], coarse, rtol=0, atol=1e-5)


def test_another_size_than_the_classifiers_is_refused() -> None:
    with pytest.raises(SurgeryError, match=r"'avgpool' brings 8 × 8 × 8 values to 8 × 6 × 6: .* is this the size"):
        convolutionalize(Small(), 40)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "Sequential has neither a fully connected layer nor a global pool"),
        (nn.Sequential(nn.Linear(3, 4)), "has no convolution"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 900, 8), nn.BatchNorm1d(8)),
            r"layer '3' \(BatchNorm1d\) works on the whole image at once and has no form that slides",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)), "can't be followed at 32 × 32"),
        (
            nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 4, 2), nn.Flatten(), nn.Linear(4, 2)
            ),
            r"layer '1' gives a map of 2 × 2 for images of 32 and of 64 alike",
        ),
    ],
)
def test_what_cannot_slide_is_named(net: nn.Module, message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        convolutionalize(net, 32)


def test_a_transformer_is_refused() -> None:
    with torch.device("meta"):
        net = timm.create_model("vit_tiny_patch16_224")
    with pytest.raises(SurgeryError, match=r"\(getitem\) works on the whole image at once"):
        convolutionalize(net)
