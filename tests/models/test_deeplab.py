"""DeepLab v1 and v2: counts, sizes and layers of the published networks, and their heads on any backbone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from atrous.grid import PIXELS, Grid, resample
from atrous.models import create_model, load
from atrous.models.backbones import fcn as classics
from atrous.models.backbones.deeplab import DeepLabBackbone, decimate
from atrous.models.base import SegmentationModel
from atrous.models.surgery.output_stride import set_output_stride
from atrous.models.surgery.trace import trace_windows


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def without_data(name: str, backbone: str, **options: object) -> SegmentationModel:
    with torch.device("meta"):
        return create_model(name, backbone=backbone, num_classes=21, **options).eval()


def image(height: int, width: int | None = None) -> Tensor:
    return torch.empty(1, 3, height, width or height, device="meta")


def awake(model: SegmentationModel) -> SegmentationModel:
    """With norms that do something, and biases."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.5)
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "backbone", "options", "count"),
    [
        ("deeplab_largefov", "vgg16", {}, 20_505_429),
        ("deeplab_largefov", "vgg16", {"kernel": 7, "rate": 4, "width": 4096}, 134_346_581),  # the text: 134.3 M
        ("deeplab_largefov", "vgg16", {"kernel": 4, "rate": 4, "width": 4096}, 65_140_565),  # 65.1 M
        ("deeplab_largefov", "vgg16", {"kernel": 4, "rate": 8, "width": 4096}, 65_140_565),
        ("deeplab_aspp", "vgg16", {}, 37_877_652),
        ("deeplab_aspp", "vgg16", {"rates": (2, 4, 8, 12)}, 37_877_652),
        ("deeplab_aspp", "resnet101", {}, 44_048_532),
        ("deeplab_largefov", "resnet101", {}, 42_500_160 + 2048 * 9 * 21 + 21),
        ("deeplab_largefov", "resnet101", {"kernel": 1}, 42_500_160 + 2048 * 21 + 21),
    ],
)
def test_parameter_counts(name: str, backbone: str, options: dict[str, object], count: int) -> None:
    assert parameters(without_data(name, backbone, **options)) == count


def sizes(model: SegmentationModel, n: int, layers: list[str]) -> list[int]:
    seen = []
    for layer in layers:
        hook = lambda *args: seen.append(args[2].shape[-1])  # noqa: E731
        model.get_submodule(layer).register_forward_hook(hook)
    scores, grid = model.coarse_logits(image(n))
    assert grid == Grid(8, 0)
    return [*seen, scores.shape[-1]]


@pytest.mark.parametrize(
    ("n", "expected"), [(321, [161, 81, 41, 41, 41, 41, 41]), (513, [257, 129, 65, 65, 65, 65, 65])]
)
def test_sizes_of_vgg(n: int, expected: list[int]) -> None:
    layers = [f"backbone.net.pool{k}" for k in (1, 2, 3, 4, 5)]
    model = without_data("deeplab_largefov", "vgg16")
    assert sizes(model, n, [*layers, "fc6"]) == expected
    assert model.coarse_logits(image(306))[0].shape == (1, 21, 39, 39)  # DL1 §3.2


@pytest.mark.parametrize(
    ("n", "expected"),
    [(321, [81, 81, 41, 41, 41, 41]), (241, [61, 61, 31, 31, 31, 31]), (161, [41, 41, 21, 21, 21, 21])],
)
def test_sizes_of_resnet(n: int, expected: list[int]) -> None:
    layers = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    assert sizes(without_data("deeplab_aspp", "resnet101"), n, [f"backbone.net.{k}" for k in layers]) == expected


@pytest.mark.parametrize("options", [{"kernel": 7, "rate": 4}, {"kernel": 4, "rate": 4}, {"kernel": 4, "rate": 8}])
def test_every_form_of_v1_has_scores_at_every_eighth_pixel(options: dict[str, object]) -> None:
    model = without_data("deeplab_largefov", "vgg16", width=4096, **options)
    scores, grid = model.coarse_logits(image(321))
    assert scores.shape[-2:] == (41, 41)
    assert grid == Grid(8, 0)


def test_resnet_has_caffes_strides_and_holes() -> None:
    windows = {w.layer: w for w in trace_windows(without_data("deeplab_aspp", "resnet101").backbone.net, size=129)}
    for layer, blocks, rate in (("layer1", 3, 1), ("layer2", 4, 1), ("layer3", 23, 2), ("layer4", 3, 4)):
        first = [windows[f"{layer}.0.{part}"] for part in ("conv1", "conv2", "downsample.0")]
        assert [w.stride for w in first] == [2 if layer == "layer2" else 1, 1, 2 if layer == "layer2" else 1]
        middle = [windows[f"{layer}.{block}.conv2"] for block in range(blocks)]
        assert {(w.kernel, w.stride, w.dilation, w.padding) for w in middle} == {(3, 1, rate, rate)}
        assert f"{layer}.{blocks}.conv2" not in windows


def literal_largefov(model: SegmentationModel) -> nn.Sequential:
    """The published table, layer by layer, with the model's weights."""
    layers: list[nn.Module] = []

    def conv(name: str, kernel: int, rate: int = 1) -> None:
        theirs = model.get_submodule(name)
        weight = theirs.weight
        ours = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, 1, (kernel - 1) * rate // 2, rate)
        ours.load_state_dict(theirs.state_dict())
        layers.extend([ours, nn.ReLU()])

    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(count):
            conv(f"backbone.net.conv{block}_{number + 1}", 3, 2 if block == 5 else 1)
        layers.append(nn.MaxPool2d(3, 2 if block < 4 else 1, 1))
    layers.append(nn.AvgPool2d(3, 1, 1))
    conv("fc6", 3, 12)
    conv("fc7", 1)
    conv("fc8", 1)
    return nn.Sequential(*layers[:-1]).eval()


@pytest.mark.parametrize("size", [(321, 321), (97, 130), (1, 1)])
def test_largefov_is_the_published_table(thin: None, size: tuple[int, int]) -> None:
    model = awake(create_model("deeplab_largefov", backbone="vgg16", num_classes=5, width=64))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(model.coarse_logits(x)[0], literal_largefov(model)(x))


@pytest.mark.parametrize("size", [(375, 500), (81, 60)])
def test_inference_is_the_published_chain(thin: None, size: tuple[int, int]) -> None:
    model = awake(create_model("deeplab_largefov", backbone="vgg16", num_classes=5, width=64, pad_to=513))
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    mean = torch.tensor(model.preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(model.preprocessing.std).view(3, 1, 1)
    canvas = mean.expand(1, 3, 513, 513).clone()
    canvas[..., : size[0], : size[1]] = image / 255
    with torch.no_grad():
        scores = literal_largefov(model)((canvas - mean) / std)
        zoomed = F.interpolate(scores, size=513, mode="bilinear", align_corners=True)  # Interp, zoom 8: 65 → 513
        ours = model(model.preprocess(image))
    assert scores.shape[-2:] == (65, 65)
    torch.testing.assert_close(ours, zoomed[..., : size[0], : size[1]], rtol=1e-4, atol=1e-5)


def test_images_are_padded_to_the_published_size_for_labelling_alone() -> None:
    model = without_data("deeplab_largefov", "vgg16", pad_to=513)
    assert model.coarse_logits(image(321, 600))[0].shape[-2:] == (65, 75)
    assert model.train().coarse_logits(image(321))[0].shape[-2:] == (41, 41)


def test_atrous_convolution_is_a_kernel_with_zeros_inserted(thin: None) -> None:
    model = awake(create_model("deeplab_largefov", backbone="vgg16", num_classes=5, width=8))
    fc6 = model.fc6
    full = torch.zeros(8, 32, 25, 25)
    full[..., ::12, ::12] = fc6.weight.detach()
    x = torch.randn(1, 32, 30, 41)
    with torch.no_grad():
        torch.testing.assert_close(fc6(x), F.conv2d(x, full, fc6.bias, padding=12), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "vgg11"])
def test_a_dense_backbone_read_sparsely_is_the_strided_one(thin: None, name: str) -> None:
    backbone = awake(DeepLabBackbone(name, output_stride=32))  # type: ignore[arg-type]
    if name == "vgg11":  # published without holes in its last pools: by the rule alone it is
        backbone._dilate = lambda stride: set_output_stride(backbone.net, stride)  # type: ignore[method-assign]
    x = torch.randn(1, 3, 257, 257)
    with torch.no_grad():
        native = backbone(x)[-1]
        for stride in (16, 8, 4):
            backbone.output_stride = stride
            read = backbone(x)[-1][..., :: 32 // stride, :: 32 // stride]
            torch.testing.assert_close(read, native, rtol=1e-4, atol=1e-5)


def test_vgg_made_denser_than_published_reads_the_same(thin: None) -> None:
    model = awake(create_model("deeplab_largefov", backbone="vgg16", num_classes=5, width=64))
    x = torch.randn(1, 3, 129, 129)
    with torch.no_grad():
        published = model.coarse_logits(x)[0]
        model.output_stride = 4
        assert model.fc6.dilation == (24, 24)
        torch.testing.assert_close(model.coarse_logits(x)[0][..., ::2, ::2], published, rtol=1e-4, atol=1e-5)
        model.output_stride = 8
        assert torch.equal(model.coarse_logits(x)[0], published)


def test_aspp_is_the_sum_of_its_branches(thin: None) -> None:
    vgg = awake(create_model("deeplab_aspp", backbone="vgg16", num_classes=5, width=16))
    resnet = awake(create_model("deeplab_aspp", backbone="resnet50", num_classes=5))
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        features, total = vgg.backbone(x)[-1], torch.zeros(())
        for i, rate in enumerate((6, 12, 18, 24), 1):
            fc6, fc7, fc8 = (vgg.get_submodule(f"fc{k}_{i}") for k in (6, 7, 8))
            hidden = F.relu(F.conv2d(features, fc6.weight, fc6.bias, padding=rate, dilation=rate))
            total = total + fc8(F.relu(fc7(hidden)))
        torch.testing.assert_close(vgg.coarse_logits(x)[0], total)
        features, total = resnet.backbone(x)[-1], torch.zeros(())
        for i, rate in enumerate((6, 12, 18, 24)):
            fc1 = resnet.get_submodule(f"fc1_c{i}")
            total = total + F.conv2d(features, fc1.weight, fc1.bias, padding=rate, dilation=rate)
        torch.testing.assert_close(resnet.coarse_logits(x)[0], total)


def test_rates_follow_the_output_stride_on_any_backbone() -> None:
    model = create_model("deeplab_aspp", backbone="resnet10t", num_classes=3)
    for stride, rates in {8: (6, 12, 18, 24), 16: (3, 6, 9, 12), 4: (12, 24, 36, 48), 32: (2, 3, 5, 6)}.items():
        model.output_stride = stride
        assert tuple(model.get_submodule(f"fc1_c{i}").dilation[0] for i in range(4)) == rates


@pytest.mark.parametrize(
    ("name", "backbone", "exact"),
    [
        ("deeplab_largefov", "resnet50", {4, 8, 16, 32}),
        ("deeplab_largefov", "vgg11", {4, 8}),  # published without holes in its last pools: nothing is less than none
        ("deeplab_aspp", "resnet50", {4, 8, 16}),  # at 32, rates 6 and 18 would be 1.5 and 4.5
        ("deeplab_msc_largefov", "resnet50", {4, 8}),  # likewise the perceptrons of the map before the last
    ],
)
def test_where_a_published_network_read_at_every_nth_position_is_the_coarser_one(
    thin: None, name: str, backbone: str, exact: set[int]
) -> None:
    model = awake(create_model(name, backbone=backbone, num_classes=5))
    for key, parameter in model.named_parameters():
        if key.startswith("msc."):
            nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 3, 257, 257)
    maps = {}
    with torch.no_grad():
        for stride in (4, 8, 16, 32):
            model.output_stride = stride
            maps[stride] = model.coarse_logits(x)[0]
    finest = maps[4]
    same = {s for s, y in maps.items() if (finest[..., :: s // 4, :: s // 4] - y).norm() / y.norm() < 1e-4}
    assert same == exact


class TestWhatLearnsAtWhichRate:
    def names(self, name: str, backbone: str, **options: object) -> set[str]:
        model = without_data(name, backbone, **options)
        inherited = {id(p) for p in model.inherited()}
        return {k.rpartition(".")[0] for k, p in model.named_parameters() if id(p) not in inherited}

    def test_on_vgg_the_last_layer_is_new(self) -> None:
        assert self.names("deeplab_largefov", "vgg16") == {"fc8"}
        assert self.names("deeplab_aspp", "vgg16") == {f"fc8_{i}" for i in range(1, 5)}

    def test_on_resnet_all_classifiers_are(self) -> None:
        assert self.names("deeplab_aspp", "resnet50") == {f"fc1_c{i}" for i in range(4)}
        new = self.names("deeplab_aspp", "resnet50", scales=(1, 0.5))
        assert new == {f"base.fc1_c{i}" for i in range(4)}

    def test_on_other_backbones_a_wide_head_is(self) -> None:
        assert self.names("deeplab_largefov", "resnet10t", width=32) == {"fc6", "fc7", "fc8"}

    def test_classifiers_start_small(self, thin: None) -> None:
        model = create_model("deeplab_largefov", backbone="vgg16", num_classes=100, width=64)
        assert 0.0095 < model.fc8.weight.std() < 0.0105
        assert not any(model.get_submodule(k).bias.any() for k in ("fc6", "fc7", "fc8"))
        assert model.dropout.p == 0.5


class TestDecimation:
    @pytest.fixture
    def connected(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return nn.Conv2d(5, 20, 7), nn.Conv2d(20, 20, 1)

    def test_keeps_whole_filters_at_spread_taps(self, connected: tuple[nn.Conv2d, nn.Conv2d]) -> None:
        fc6, fc7 = connected
        for kernel, taps in ((3, [0, 3, 6]), (4, [0, 2, 4, 6]), (7, list(range(7)))):
            weight6, bias6, weight7, bias7 = decimate(fc6, fc7, kernel=kernel, width=8, seed=1)
            chosen = [(fc6.bias == b).nonzero().item() for b in bias6]
            assert sorted(set(chosen)) == chosen
            assert torch.equal(weight6, fc6.weight[chosen][:, :, taps][..., taps])
            outputs = [(fc7.bias == b).nonzero().item() for b in bias7]
            assert torch.equal(weight7, fc7.weight[outputs][:, chosen])

    def test_its_seed_chooses(self, connected: tuple[nn.Conv2d, nn.Conv2d]) -> None:
        first, again, other = (decimate(*connected, width=8, seed=seed)[1] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_can_not_add_filters(self, connected: tuple[nn.Conv2d, nn.Conv2d]) -> None:
        with pytest.raises(ValueError, match="20 filters of 7 × 7; 1024 of 3 × 3 can't be chosen"):
            decimate(*connected)

    def test_a_pretrained_vgg_gives_its_head(self, thin: None, tmp_path: Path) -> None:
        classifier = classics._classifier("vgg11")
        save_file(classifier.state_dict(), tmp_path / "vgg11.safetensors")
        file = str(tmp_path / "vgg11.safetensors")
        model = create_model("deeplab_aspp", backbone="vgg11", num_classes=3, width=64, pretrained=file, seed=5)
        assert torch.equal(model.backbone.net.conv1_1.weight, classifier.features[0].weight)
        for i in range(4):
            fc6 = model.get_submodule(f"fc6_{i + 1}")
            filters = classifier.classifier[0].weight.view(256, 32, 7, 7)[..., ::3, ::3]
            assert all((filters == f).flatten(1).all(1).any() for f in fc6.weight)
        assert not torch.equal(model.fc6_1.weight, model.fc6_2.weight)
        assert model.backbone.release_connected() is None
        bare = create_model("deeplab_largefov", backbone="vgg11", num_classes=3, width=0, pretrained=file)
        assert bare.backbone.release_connected() is None


def test_what_can_not_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="one of 4, 8, 16, 32"):
        without_data("deeplab_aspp", "vgg11", output_stride=7)


class TestMSc:
    def test_counts_and_released_names(self) -> None:
        model = without_data("deeplab_msc_largefov", "vgg16")
        branches = {"data": 3, "pool1": 64, "pool2": 128, "pool3": 256, "pool4": 512}
        new = sum(c * 9 * 128 + 128 + 128 * 128 + 128 + 128 * 21 + 21 for c in branches.values())
        assert parameters(model) == 20_505_429 + new
        names = {k.removeprefix("msc.").rpartition(".")[0] for k in model.state_dict() if k.startswith("msc.")}
        assert names == {f"{b}_{part}" for b in branches for part in ("conv", "fc", "ms")}
        strides = {b: model.msc[f"{b}_conv"].stride[0] for b in branches}
        assert strides == {"data": 8, "pool1": 4, "pool2": 2, "pool3": 1, "pool4": 1}

    def test_goes_on_from_largefov(self, thin: None) -> None:
        simple = awake(create_model("deeplab_largefov", backbone="vgg11", num_classes=3, width=64))
        model = create_model("deeplab_msc_largefov", backbone="vgg11", num_classes=3, width=64).eval()
        model.start_from(simple)
        x = torch.randn(1, 3, 97, 66)
        with torch.no_grad():
            torch.testing.assert_close(model(x), simple(x), rtol=0, atol=1e-3)  # new weights start at nearly nothing
            for key in ("data_ms", *(f"pool{k}_ms" for k in range(1, 5))):
                nn.init.zeros_(model.msc[key].weight)
            assert torch.equal(model(x), simple(x))

    def test_is_a_classifier_of_concatenated_features(self, thin: None) -> None:
        model = awake(create_model("deeplab_msc_largefov", backbone="vgg16", num_classes=3, width=64))
        for key, parameter in model.msc.named_parameters():
            nn.init.normal_(parameter, std=0.1 if "weight" in key else 0.01)
        x = torch.randn(1, 3, 73, 90)
        with torch.no_grad():
            features = model.backbone(x)
            maps = model.embed(features)[0]
            for name, source in zip(("data", "pool1", "pool2", "pool3", "pool4"), (x, *features), strict=False):
                conv, fc = model.msc[f"{name}_conv"], model.msc[f"{name}_fc"]
                maps.append(F.relu(fc(F.relu(F.conv2d(source, conv.weight, conv.bias, conv.stride, 1)))))
            classifiers = [model.fc8, *(m for k, m in model.msc.items() if k.endswith("_ms"))]
            weight = torch.cat([c.weight for c in classifiers], 1)
            expected = F.conv2d(torch.cat(maps, 1), weight, sum(c.bias for c in classifiers))
            torch.testing.assert_close(model.coarse_logits(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deeplab_largefov", "deeplab_msc_largefov", "deeplab_aspp"])
@pytest.mark.parametrize("backbone", ["vgg16_bn", "resnet50"])
def test_published_backbones_are_models_like_any_other(thin: None, name: str, backbone: str, tmp_path: Path) -> None:
    model = awake(create_model(name, backbone=backbone, num_classes=3, in_channels=4))
    x = torch.randn(2, 4, 34, 50)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 3, 34, 50)
        scores, grid = model.coarse_logits(x)
        assert torch.equal(resample(scores, grid, PIXELS, (34, 50)), logits)
        assert torch.equal(load(model.save(tmp_path / "model"))(x), logits)
        for stride in (32, 16, 4, 8):
            model.output_stride = stride
            assert model(x).shape == logits.shape
        assert torch.equal(model(x), logits)


def test_a_small_network_learns(thin: None) -> None:
    """Left is one class, right another, as brightness tells; a few steps are enough."""
    model = create_model("deeplab_largefov", backbone="vgg11_bn", num_classes=2, width=64).train()
    for dropout in (m for m in model.modules() if isinstance(m, nn.Dropout)):
        dropout.p = 0.0
    x = torch.randn(4, 3, 65, 65) * 0.1
    x[..., 32:] += 1
    truth = torch.zeros(4, 65, 65, dtype=torch.long)
    truth[..., 32:] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(25):
        loss = sum(F.cross_entropy(output.at((65, 65)), truth) for output in model.outputs(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(x).argmax(1) == truth).float().mean() > 0.9
