"""Any plain convolutional network as a backbone."""

import copy
import itertools
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import atrous
from atrous.errors import AtrousError, InputError
from atrous.grid import Grid
from atrous.models import create_model, load, register_backbone
from atrous.models.backbones import TimmBackbone, TracedBackbone
from atrous.models.registry import BACKBONES
from atrous.models.surgery.output_stride import SurgeryError


class Plain(nn.Module):
    """Five convolutions as people write them: functions for pools and ReLU, and a classifier for 32 × 32."""

    def __init__(self, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        widths = (in_channels, 8, 16, 24, 32, 40)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.fc = nn.Linear(40 * 2 * 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if number < 4:
                x = F.max_pool2d(x, 2)
        x = F.dropout(x, 0.2, training=self.training)
        return self.fc(x.view(x.size(0), -1))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "plain":
        return Plain().eval()
    if name == "dla34":
        return timm.create_model(name).eval()
    return getattr(torchvision.models, name)(weights=None).eval()


NETWORKS = {
    "resnet18": ((2, 4, 8, 16, 32), (64, 64, 128, 256, 512)),
    "densenet121": ((2, 4, 8, 16, 32), (64, 128, 256, 512, 1024)),
    "mobilenet_v3_large": ((2, 4, 8, 16, 32), (64, 72, 240, 672, 960)),
    "plain": ((2, 4, 8, 16), (16, 24, 32, 40)),
    "dla34": ((2, 4, 8, 16, 32), (32, 64, 128, 256, 512)),
}


@pytest.mark.parametrize("name", NETWORKS)
class TestAPlainNetwork:
    def test_its_features_are_the_deepest_of_each_stride(self, name: str) -> None:
        backbone = TracedBackbone(network(name))
        assert (backbone.strides, backbone.channels) == NETWORKS[name]
        assert backbone.output_stride == backbone.strides[-1]

    def test_output_at_stride_8_read_at_every_further_position_equals_the_native_one(self, name: str) -> None:
        backbone = TracedBackbone(network(name)).eval()
        step, image = backbone.output_stride // 8, torch.randn(1, 3, 128, 160)
        with torch.no_grad():
            native = backbone(image)[-1]
            backbone.output_stride = 8
            dense = backbone(image)[-1]
        # Squeeze-and-excitation averages over all positions, and there are more of them.
        allowed = 0.5 if name == "mobilenet_v3_large" else 1e-5
        assert dense.shape[-1] == 20
        assert ((dense[..., ::step, ::step] - native).abs().max() / native.abs().max()).item() < allowed

    def test_it_predicts_and_learns_under_a_head(self, name: str) -> None:
        model = create_model("deeplabv3plus", backbone=network(name), num_classes=3, channels=16)
        assert model.output_stride == 16
        for size in ((1, 1), (33, 70)):
            with torch.no_grad():
                assert model.eval()(torch.randn(1, 3, *size)).shape == (1, 3, *size)
        model.output_stride = 8
        model.train()(torch.randn(2, 3, 64, 65)).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    def test_the_network_itself_is_left_as_it_is(self, name: str) -> None:
        net = network(name)
        weights, described = copy.deepcopy(net.state_dict()), repr(net)
        TracedBackbone(net).output_stride = 8
        assert repr(net) == described
        assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
        assert not any(p.is_meta for p in net.parameters())


def test_features_are_those_of_the_network() -> None:
    net, image = network("resnet18"), torch.randn(1, 3, 64, 64)
    stem = net.maxpool(net.relu(net.bn1(net.conv1(image))))
    with torch.no_grad():
        features = TracedBackbone(net)(image)
        assert torch.equal(features[-1], net.layer4(net.layer3(net.layer2(net.layer1(stem)))))


def test_a_network_that_returns_several_maps_is_asked_for_just_these() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3, 4, 1), nn.Conv2d(4, 6, 3, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            fine = self.a(x)
            return {"fine": fine, "coarse": self.b(fine)}

    backbone = TracedBackbone(Pyramid())
    assert (backbone.strides, backbone.channels, backbone.in_channels) == ((4, 8), (4, 6), 1)
    assert backbone.grids == (Grid(4, 0), Grid(8, 0))


def test_an_average_pool_at_the_end_is_a_global_one() -> None:
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.AvgPool2d(8), nn.Flatten()]
    assert TracedBackbone(nn.Sequential(*layers, nn.Linear(8, 2))).strides == (2, 4)


def test_convolutions_without_padding_get_the_pixels_that_they_need() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 8, 5), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
    model = create_model("deeplabv3", backbone=net, num_classes=2, channels=8).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 1, 3)).shape == (1, 2, 1, 3)


def test_dropout_and_batch_norm_follow_the_mode() -> None:
    backbone = TracedBackbone(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU()))
    image = torch.randn(2, 3, 16, 16)
    assert not torch.equal(backbone.train()(image)[-1], backbone(image)[-1])
    assert torch.equal(backbone.eval()(image)[-1], backbone(image)[-1])


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 8:
            raise ValueError("too small")
        return super().forward(x)


class Shuffling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shuffle, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.PixelShuffle(2), nn.Conv2d(2, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shuffle(self.conv(x)))


class OnlyInTraining(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 1 if self.training else x)


class Reflecting(nn.Sequential):
    def __init__(self) -> None:
        convs = [nn.Conv2d(a, 4, 3, 2, 1, padding_mode="reflect") for a in (3, 4, 4, 4, 4)]
        super().__init__(*convs)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Branching(), r"Branching\.forward can't be read .*: move what depends on the data"),
        (Shuffling(), r"Shuffling can't be followed: in layer 'shuffle' \(PixelShuffle\) .* changes the size"),
        (OnlyInTraining(), r"OnlyInTraining\.forward computes its features differently in training"),
        (nn.Linear(3, 4), "Linear has no convolution"),
        (Reflecting(), r"layer '4' \(Conv2d\) pads by 'reflect', which has no dilated form"),
        (torchvision.models.vit_b_16(), "VisionTransformer can't be followed: .*Wrong image height"),
    ],
)
def test_a_network_that_can_not_be_treated_is_refused_with_the_layer(net: nn.Module, said: str) -> None:
    with pytest.raises(SurgeryError, match=said):
        create_model("deeplabv3", backbone=net, num_classes=2)


def test_channels_that_disagree_are_refused() -> None:
    with pytest.raises(InputError, match="in_channels is 4, but the first convolution of Plain takes 3 channels"):
        create_model("deeplabv3", backbone=Plain(), in_channels=4, num_classes=2)


def test_a_model_on_an_object_is_saved_once_its_backbone_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for store in ("_entries", "_owners"):
        monkeypatch.setattr(BACKBONES, store, dict(getattr(BACKBONES, store)))
    model = create_model("deeplabv3plus", backbone=Plain(), num_classes=3, channels=16).eval()
    model.output_stride = 8
    with pytest.raises(AtrousError, match=r"backbone Plain was given as an object.*register_backbone\('my_net'\)"):
        model.save(tmp_path / "model")

    @register_backbone("plain")
    def plain(*, in_channels: int, pretrained: bool, output_stride: int) -> nn.Module:
        assert not pretrained
        assert output_stride == 8
        return Plain(in_channels)

    model.backbone.name = "plain"
    again = load(model.save(tmp_path / "model"))
    image = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        assert torch.equal(model(image), again(image))
    assert again.output_stride == 8


def test_its_state_dict_goes_into_a_second_model() -> None:
    first, second = (create_model("fcn", backbone=Plain(), num_classes=3).eval() for _ in range(2))
    second.load_state_dict(copy.deepcopy(first).state_dict())
    image = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (65, 64)])
def test_dla34_by_name_takes_any_size(size: tuple[int, int]) -> None:
    model = create_model("deeplabv3plus", backbone="dla34", num_classes=3, output_stride=8, channels=16).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


def test_a_dilated_pool_with_padding_is_exact() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.MaxPool2d(3, 1, 1)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = net(image)
        four = atrous.set_output_stride(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), *copy.deepcopy(net)), 4)
        eight = TracedBackbone(nn.Sequential(four[0], *net)).eval()(image)[-1]
        assert torch.equal(four(image)[..., ::2, ::2], eight)
    assert before.shape[-1] == 16


def test_the_traced_network_is_the_one_that_timm_taps() -> None:
    timms = TimmBackbone("resnet10t", output_stride=32).eval()
    ours = TracedBackbone(timms.net).eval()
    image = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(timms(image), ours(image), strict=True))
    assert (timms.grids, timms.channels) == (ours.grids, ours.channels)
