"""The released backbones, held to literal rewrites of TensorFlow's `resnet_v1_beta` and `xception`."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.models import create_model
from atrous.models.backbones.base import Backbone
from atrous.models.backbones.deeplabv3 import BACKBONES, ReleasedBackbone

Weights = dict[str, Tensor]
Unit = Callable[[Tensor, int, int], Tensor]


def make_backbone(name: str, **options: object) -> Backbone:
    """A backbone whose every branch speaks: timm starts the last norm of each unit at zero, which would hide it."""
    torch.manual_seed(0)
    backbone = BACKBONES[name](**options)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone.eval()


def features(backbone: Backbone, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return backbone(x)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


def norm(w: Weights, key: str, x: Tensor, eps: float) -> Tensor:
    return F.batch_norm(
        x, w[f"{key}.running_mean"], w[f"{key}.running_var"], w[f"{key}.weight"], w[f"{key}.bias"], eps=eps
    )


def same(weight: Tensor, x: Tensor, stride: int = 1, rate: int = 1) -> Tensor:
    """`conv2d_same` and `fixed_padding`: explicit zeros around, then a convolution without padding."""
    total = (weight.shape[-1] - 1) * rate
    front, back = total // 2, total - total // 2
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(F.pad(x, (front, back, front, back)), weight, None, stride, 0, rate, groups)


def stack_densely(x: Tensor, blocks: list[list[tuple[Unit, int]]], current: int, target: int) -> Iterator[Tensor]:
    """`stack_blocks_dense`: once the stride is reached, later units take rates in place of strides."""
    rate = 1
    for block in blocks:
        for unit, stride in block:
            if current == target:
                x = unit(x, 1, rate)
                rate *= stride
            else:
                x = unit(x, stride, 1)
                current *= stride
            yield x


def beta_resnet(
    w: Weights, counts: tuple[int, ...], x: Tensor, target: int, multi_grid: tuple[int, ...]
) -> tuple[dict[str, Tensor], Tensor]:
    """`resnet_v1_beta`, layer by layer: the end points of `conv3`, and the last map."""
    points = {}

    def unit(key: str, multiple: int) -> Unit:
        def bottleneck(x: Tensor, stride: int, rate: int) -> Tensor:
            if f"{key}.downsample.0.weight" in w:
                shortcut = norm(w, f"{key}.downsample.1", same(w[f"{key}.downsample.0.weight"], x, stride), 1e-5)
            else:
                shortcut = x[..., ::stride, ::stride]
            y = norm(w, f"{key}.bn1", same(w[f"{key}.conv1.weight"], x), 1e-5).relu()
            y = norm(w, f"{key}.bn2", same(w[f"{key}.conv2.weight"], y, stride, rate * multiple), 1e-5).relu()
            y = points[key] = norm(w, f"{key}.bn3", same(w[f"{key}.conv3.weight"], y), 1e-5)
            return (shortcut + y).relu()

        return bottleneck

    for number, stride in ((0, 2), (3, 1), (6, 1)):
        key = f"conv1.{number + 1}" if number < 6 else "bn1"
        x = norm(w, key, same(w[f"conv1.{number}.weight"], x, stride), 1e-5).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    blocks = []
    for number, count in enumerate(counts, 1):
        rates = multi_grid if number == 4 else (1,) * count
        last = 2 if number < 4 else 1
        blocks.append(
            [(unit(f"layer{number}.{i}", rates[i]), last if i == count - 1 else 1) for i in range(count)],
        )
    *_, x = stack_densely(x, blocks, 4, target)
    return points, x


def xception(
    w: Weights, flows: list[tuple[int, bool, bool]], x: Tensor, target: int
) -> tuple[dict[str, Tensor], Tensor]:
    """`xception`, layer by layer: the end points of `separable_conv2_pointwise`, and the last map.

    Args:
        flows: of each block its stride, whether it has a shortcut, and whether its ReLUs lie inside the separable
            convolutions.
    """
    points = {}

    def separable(key: str, x: Tensor, stride: int, rate: int, inside: bool) -> Tensor:
        x = norm(w, f"{key}.bn_dw", same(w[f"{key}.conv_dw.weight"], x, stride, rate), 1e-3)
        x = norm(w, f"{key}.bn_pw", same(w[f"{key}.conv_pw.weight"], x.relu() if inside else x), 1e-3)
        return x.relu() if inside else x

    def module(key: str, shortcut: bool, inside: bool) -> Unit:
        def block(x: Tensor, stride: int, rate: int) -> Tensor:
            y = x
            for number in (1, 2, 3):
                y = separable(
                    f"{key}.stack.conv{number}", y if inside else y.relu(), stride if number == 3 else 1, rate, inside
                )
                if number == 2:
                    points[key] = y
            if not shortcut:
                return y
            if f"{key}.shortcut.conv.weight" in w:
                x = norm(w, f"{key}.shortcut.bn", same(w[f"{key}.shortcut.conv.weight"], x, stride), 1e-3)
            return x + y

        return block

    for number, stride in ((0, 2), (1, 1)):
        x = norm(w, f"stem_{number}.bn", same(w[f"stem_{number}.conv.weight"], x, stride), 1e-3).relu()
    blocks = [[(module(f"blocks_{i}", s, a), stride)] for i, (stride, s, a) in enumerate(flows)]
    *_, x = stack_densely(x, blocks, 2, target)
    return points, x


MIDDLE, EXIT = (1, True, False), [(2, True, False), (1, False, True)]
FLOWS = {
    "xception41": [*[(2, True, False)] * 3, *[MIDDLE] * 8, *EXIT],
    "xception71": [*((s, True, False) for s in (2, 1, 2, 1, 2)), *[MIDDLE] * 16, *EXIT],
}


@pytest.mark.parametrize(("target", "multi_grid"), [(32, (1, 1, 1)), (16, (1, 2, 4)), (8, (1, 2, 4))])
def test_resnet_beta_is_tensorflows(target: int, multi_grid: tuple[int, ...]) -> None:
    backbone = make_backbone("resnet50_beta", output_stride=target)
    backbone.set_multi_grid(multi_grid)
    x = torch.randn(1, 3, 129, 97)
    ours = features(backbone, x)
    with torch.no_grad():
        points, last = beta_resnet(backbone.net.state_dict(), (3, 4, 6, 3), x, target, multi_grid)
    for level, unit in ((1, "layer1.1"), (2, "layer2.2"), (3, "layer3.4")):
        assert close(ours[level], points[unit])
        assert ours[level].min() < 0
    assert close(ours[4], last)


@pytest.mark.parametrize(
    ("name", "target", "blocks"),
    [("xception41", 32, (0, 1, 2, 11)), ("xception41", 8, (0, 1, 2, 11)), ("xception71", 16, (0, 2, 4, 21))],
)
def test_xception_is_tensorflows(name: str, target: int, blocks: tuple[int, ...]) -> None:
    backbone = make_backbone(name, output_stride=target)
    x = torch.randn(1, 3, 97, 65)
    ours = features(backbone, x)
    with torch.no_grad():
        points, last = xception(backbone.net.state_dict(), FLOWS[name], x, target)
    for level, block in enumerate(blocks):
        assert close(ours[level], points[f"blocks_{block}"])
        assert ours[level].min() < 0  # before the ReLU
    assert ours[1].shape[1] == 256
    assert close(ours[4], last)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50_beta", "xception41"])
def test_dense_features_read_sparsely_equal_the_native_ones(name: str) -> None:
    backbone = make_backbone(name, output_stride=32)
    backbone.set_multi_grid((1, 2, 4))
    x = torch.randn(1, 3, 129, 129)
    native = features(backbone, x)
    for stride in (16, 8, 4):
        backbone.output_stride = stride
        dense = features(backbone, x)
        for ours, theirs, own, grid in zip(dense, native, backbone.strides, backbone.grids, strict=True):
            assert (grid.stride, grid.offset) == (min(own, stride), 0)
            step = max(1, own // stride)
            assert close(ours[..., ::step, ::step], theirs)
    backbone.output_stride = 32
    assert all(torch.equal(a, b) for a, b in zip(features(backbone, x), native, strict=True))


@pytest.mark.parametrize(("stride", "rates"), [(32, (1, 2, 4)), (16, (2, 4, 8)), (8, (4, 8, 16))])
def test_multi_grid_multiplies_what_the_output_stride_gives(stride: int, rates: tuple[int, ...]) -> None:
    model = create_model("deeplabv3", backbone="resnet50_beta", num_classes=2, multi_grid=[1, 2, 4])
    model.output_stride = stride
    units = model.backbone.net["layer4"]
    assert tuple(unit.conv2.dilation[0] for unit in units) == rates
    assert tuple(unit.conv2.padding[0] for unit in units) == rates
    # The unit that would have had the stride keeps the rate of those before it.
    assert {unit.conv2.dilation[0] for unit in model.backbone.net["layer3"]} == {max(1, 16 // stride)}


def test_a_unit_that_would_have_had_the_stride_keeps_its_rate_in_the_common_resnets() -> None:
    model = create_model("deeplabv3", backbone="resnet50", num_classes=2, multi_grid=[1, 2, 4], output_stride=16)
    assert [unit.conv2.dilation[0] for unit in model.backbone.net["layer4"]] == [1, 4, 8]


def test_the_name_of_weights_changes_nothing_in_the_form() -> None:
    with torch.device("meta"):
        assert isinstance(
            create_model("deeplabv3", backbone="xception41.tf_in1k", num_classes=2).backbone, ReleasedBackbone
        )


def test_a_copy_has_features_of_its_own() -> None:
    backbone = make_backbone("resnet50_beta")
    twin = copy.deepcopy(backbone)
    nn.init.zeros_(twin.net["layer1"][1].bn3.weight)
    x = torch.randn(1, 3, 65, 65)
    before = features(backbone, x)[1]
    assert not torch.equal(features(twin, x)[1], before)
    assert torch.equal(features(backbone, x)[1], before)


def test_gradients_reach_every_weight_through_the_low_level_features() -> None:
    model = create_model("deeplabv3plus", backbone="resnet50_beta", num_classes=2, channels=8, low_level_channels=8)
    model.train()(torch.randn(2, 3, 65, 65)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
