"""Beside the programs that DeepLabv3 and v3+ are brought from: the same scores at network resolution.

Sides are 32k + 1: there all of them, and we, have features at the same places of the image.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
import torchvision.transforms.functional as F_vision
from torch import Tensor, nn
from typer.testing import CliRunner

from atrous.cli import app
from atrous.convert.pytorch import convert_pytorch
from atrous.convert.tensors import ConversionError
from atrous.convert.to_pytorch import export_pytorch
from atrous.inference.predict import predict
from atrous.labels import LabelSet
from atrous.models import SegmentationModel, create_model, load
from atrous.models.backbones.weights import read_weights

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., SegmentationModel]:
    """Through a file, and through the model folder."""

    def through(net: nn.Module, architecture: str, layout: str, **options: object) -> SegmentationModel:
        torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "net.pth")
        return convert_pytorch(tmp_path / "net.pth", architecture, layout, **options)

    return through


def randomise(net: nn.Module) -> nn.Module:
    """Weights of a sensible size, and statistics as of a trained network: those it is made with would hide mistakes."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def away(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def assert_left_out(ours: SegmentationModel, theirs: nn.Module, beginnings: tuple[str, ...]) -> None:
    """The model's card names those tensors, and what the file held beside tensors."""
    tensors = [name for name in theirs.state_dict() if name.startswith(beginnings)]
    assert ours.card["left_out"] == ["epoch", *tensors]


def goes_back(ours: SegmentationModel, layout: str, theirs: nn.Module, left_out: tuple[str, ...] = ()) -> None:
    """Under their names again, tensors are what they were."""
    found = export_pytorch(ours, layout)
    expected = {name: t for name, t in theirs.state_dict().items() if not name.startswith(left_out or ("-",))}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "backbone", "aux"),
    [
        ("deeplabv3_resnet50", "resnet50", True),
        ("deeplabv3_mobilenet_v3_large", "mobilenetv3_large_100", True),
        ("deeplabv3_mobilenet_v3_large", "mobilenetv3_large_100", False),
        pytest.param("deeplabv3_resnet101", "resnet101", False, marks=pytest.mark.slow),
        pytest.param("fcn_resnet50", "resnet50", True, marks=pytest.mark.slow),
    ],
)
def test_torchvision(convert: Callable[..., SegmentationModel], name: str, backbone: str, aux: bool) -> None:
    build = getattr(torchvision.models.segmentation, name)
    theirs = randomise(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux))
    ours = convert(theirs, name.partition("_")[0], "torchvision")
    mobile = "mobile" in name
    assert (ours.backbone.name, ours.output_stride) == (backbone, 16 if mobile else 8)
    assert ours.label_set.names[15] == "person"
    x = torch.randn(2, 3, 97, 129)
    with torch.no_grad():
        features = theirs.backbone(x)
        assert away(ours.coarse_logits(x)[0], theirs.classifier(features["out"])) < 1e-4
        if aux and not mobile:
            assert away(ours.outputs(x)[1].logits, theirs.aux_classifier(features["aux"])) < 1e-4
    left_out = ("aux_classifier.",) if mobile else ()
    assert_left_out(ours, theirs, left_out)
    goes_back(ours, "torchvision", theirs, left_out)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("deeplabv3_mobilenet_v3_large", [(97, 129), (131, 70), (50, 64), (33, 1)]),
        pytest.param("deeplabv3_resnet50", [(71, 90)], marks=pytest.mark.slow),
        pytest.param("fcn_resnet50", [(71, 90)], marks=pytest.mark.slow),
    ],
)
def test_labels_of_torchvision(tmp_path: Path, name: str, sizes: list[tuple[int, int]]) -> None:
    """Through the command line, and images of any size: the labels that torchvision's own code gives."""
    torch.manual_seed(0)
    theirs = randomise(getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None))
    last = theirs.classifier[-1]
    with torch.no_grad():  # all classes are seen
        coarse = theirs.classifier(theirs.backbone(torch.randn(1, 3, 97, 97))["out"])
        last.bias -= coarse.mean((0, 2, 3))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    options = ("--as", name.partition("_")[0], "--layout", "torchvision", "--out", tmp_path / "m")
    converted = CliRunner().invoke(app, [str(word) for word in ("convert", "pytorch", tmp_path / "net.pth", *options)])
    assert "note: full-size logits are made as torchvision makes them" in converted.stderr
    ours = load(tmp_path / "m")
    for size in sizes:
        image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
        with torch.no_grad():
            logits = theirs(F_vision.normalize(image.permute(2, 0, 1) / 255, *IMAGENET)[None])["out"]
        expected = logits.argmax(1)[0].numpy()
        assert size == (33, 1) or len(np.unique(expected)) > 3
        # A pixel of two equal classes may be either: the networks' logits differ by rounding.
        first, second = logits[0].topk(2, 0).values
        close = ((first - second) < 1e-5 * logits.abs().max()).numpy()
        labels = predict(ours, image.numpy()).labels
        assert (labels == expected)[~close].all()
        assert close.mean() < 1e-3
        if min(size) > 1:
            ours.resize = "exact"
            assert (predict(ours, image.numpy()).labels != expected)[~close].any()
            ours.resize = "torchvision"


def labels_are_the_sigmoids(ours: SegmentationModel, logits: Tensor, x: Tensor) -> None:
    """Two classes: their probabilities and labels are those of the other program's sigmoid."""
    with torch.no_grad():
        found, _ = ours.coarse_logits(x)
    assert found.shape[1] == 2
    assert away(found[:, 1:], logits) < 1e-4
    torch.testing.assert_close(found.softmax(1)[:, 1:], logits.sigmoid(), rtol=0, atol=1e-3)
    clear = logits[:, 0].abs() > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(found.argmax(1)[clear], (logits.sigmoid()[:, 0] > 0.5).long()[clear])
    assert ours.label_set.names == ("background", "foreground")


@pytest.mark.parametrize(
    ("name", "aux"),
    [
        ("deeplabv3_mobilenet_v3_large", False),
        ("fcn_resnet50", True),
        pytest.param("deeplabv3_resnet50", True, marks=pytest.mark.slow),
    ],
)
def test_one_output_of_torchvisions(convert: Callable[..., SegmentationModel], name: str, aux: bool) -> None:
    build = getattr(torchvision.models.segmentation, name)
    theirs = randomise(build(weights=None, weights_backbone=None, num_classes=1, aux_loss=aux))
    ours = convert(theirs, name.partition("_")[0], "torchvision")
    x = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        features = theirs.backbone(x)
        labels_are_the_sigmoids(ours, theirs.classifier(features["out"]), x)
        if aux:
            assert away(ours.outputs(x)[1].logits[:, 1:], theirs.aux_classifier(features["aux"])) < 1e-4
    names = LabelSet(("road", "crack"))
    assert convert(theirs, name.partition("_")[0], "torchvision", label_set=names).label_set == names


def test_one_output_of_segmentation_models_pytorch(convert: Callable[..., SegmentationModel]) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation-models-pytorch is in [bench]")
    theirs = smp.DeepLabV3("resnet18", encoder_weights=None, classes=1, encoder_output_stride=16)
    randomise(theirs)
    x = torch.randn(1, 3, 129, 161)
    with torch.no_grad():
        logits = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(x)))
    labels_are_the_sigmoids(convert(theirs, "deeplabv3", "smp"), logits, x)


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    build = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
    net = build(weights=None, weights_backbone=None, num_classes=2, aux_loss=True)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    options = ("--as", "deeplabv3", "--layout", "torchvision", "--out", tmp_path / "m")
    done = CliRunner().invoke(app, ["convert", "pytorch", str(tmp_path / "net.pth"), *map(str, options)])
    assert done.exit_code == 0, done.output
    expected = (
        "note: 8 tensors that have no effect on the logits were left out: aux_classifier.0.weight, aux_classifier.1"
    )
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("width", "stride"), [(1.0, 16), pytest.param(1.4, 8, marks=pytest.mark.slow), (0.5, 32), (0.35, 8)]
)
def test_transformers(convert: Callable[..., SegmentationModel], width: float, stride: int) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is in the extra [bench]")
    config = transformers.MobileNetV2Config(depth_multiplier=width, output_stride=stride, num_labels=21)
    theirs = randomise(transformers.MobileNetV2ForSemanticSegmentation(config))
    ours = convert(theirs, "deeplabv3", "transformers")
    assert ours.config["options"]["rates"] == []
    assert ours.preprocessing.mean == (0.5,) * 3
    ours.output_stride = stride
    x = torch.randn(1, 3, 129, 161)
    with torch.no_grad():
        assert away(ours.coarse_logits(x)[0], theirs(x).logits) < 1e-4
    assert_left_out(ours, theirs, ("mobilenet_v2.conv_1x1.",))
    goes_back(ours, "transformers", theirs, ("mobilenet_v2.conv_1x1.",))


@pytest.mark.parametrize("encoder", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.parametrize("architecture", ["DeepLabV3", "DeepLabV3Plus"])
def test_segmentation_models_pytorch(
    convert: Callable[..., SegmentationModel], encoder: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation-models-pytorch is in [bench]")
    theirs = getattr(smp, architecture)(encoder, encoder_weights=None, classes=5, encoder_output_stride=16)
    randomise(theirs)
    ours = convert(theirs, architecture.lower(), "smp")
    if architecture == "DeepLabV3Plus":  # by a factor of four, that is not where its features are
        theirs.decoder.up = Aligned((33, 41))
    x = torch.randn(1, 3, 129, 161)
    with torch.no_grad():
        scores = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(x)))
        assert away(ours.coarse_logits(x)[0], scores) < 1e-4
    if architecture == "DeepLabV3":
        goes_back(ours, "smp", theirs)
    else:
        with pytest.raises(ConversionError, match="can't be written as two convolutions"):
            export_pytorch(ours, "smp")


class Aligned(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=self.size, mode="bilinear", align_corners=True)


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, rate: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class TorchvisionASPP(nn.Module):
    """Of torchvision, and of those that follow it; ``rates`` at the output stride of the features."""

    def __init__(self, rates: tuple[int, ...]) -> None:
        super().__init__()
        kinds = [(1, 1), *((3, rate) for rate in rates)]
        branches = [nn.Sequential(*conv_bn_relu(2048, 256, *kind)) for kind in kinds]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(2048, 256))
        self.convs = nn.ModuleList([*branches, pooled])
        self.project = nn.Sequential(*conv_bn_relu(1280, 256), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([conv(x).expand(-1, -1, *x.shape[-2:]) for conv in self.convs], 1))


class VainF(nn.Module):
    """network/_deeplab.py on ResNet-50 at output stride 16, but for align_corners, which is False there."""

    def __init__(self, plus: bool) -> None:
        super().__init__()
        layers = {"layer1": "low_level", "layer4": "out"}
        resnet = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        self.backbone = torchvision.models._utils.IntermediateLayerGetter(resnet, layers)
        self.classifier = nn.Module()
        aspp = TorchvisionASPP((6, 12, 18))
        if plus:
            self.classifier.project = nn.Sequential(*conv_bn_relu(256, 48))
            self.classifier.aspp = aspp
            self.classifier.classifier = nn.Sequential(*conv_bn_relu(304, 256, 3), nn.Conv2d(256, 7, 1))
        else:
            self.classifier.classifier = nn.Sequential(aspp, *conv_bn_relu(256, 256, 3), nn.Conv2d(256, 7, 1))
        self.plus = plus

    def forward(self, x: Tensor) -> Tensor:
        features, head = self.backbone(x), self.classifier
        if not self.plus:
            return head.classifier(features["out"])
        low = head.project(features["low_level"])
        return head.classifier(torch.cat([low, Aligned(low.shape[-2:])(head.aspp(features["out"]))], 1))


@pytest.mark.parametrize("plus", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_vainf(convert: Callable[..., SegmentationModel], plus: bool) -> None:
    theirs = randomise(VainF(plus))
    ours = convert(theirs, "deeplabv3plus" if plus else "deeplabv3", "vainf")
    x = torch.randn(1, 3, 129, 97)
    with torch.no_grad():
        assert away(ours.coarse_logits(x)[0], theirs(x)) < 1e-4
    goes_back(ours, "vainf", theirs)


class JFZhang95(nn.Module):
    """modeling/deeplab.py with ResNet-101 at output stride 16; dropout between the decoder's layers or not."""

    def __init__(self, dropout: bool) -> None:
        super().__init__()
        resnet = torchvision.models.resnet101(weights=None, replace_stride_with_dilation=[False, False, True])
        for block, rate in zip(resnet.layer4, (2, 4, 8), strict=True):
            block.conv2.dilation = block.conv2.padding = (rate, rate)
        del resnet.fc
        self.backbone = resnet
        self.aspp, self.decoder = nn.Module(), nn.Module()
        for i, kind in enumerate([(1, 1), (3, 6), (3, 12), (3, 18)], 1):
            branch = nn.Module()
            branch.atrous_conv, branch.bn, _ = conv_bn_relu(2048, 256, *kind)
            self.aspp.add_module(f"aspp{i}", branch)
        self.aspp.global_avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(2048, 256))
        self.aspp.conv1, self.aspp.bn1, _ = conv_bn_relu(1280, 256)
        self.decoder.conv1, self.decoder.bn1, _ = conv_bn_relu(256, 48)
        between = [nn.Dropout(0.5)] if dropout else []
        layers = [*conv_bn_relu(304, 256, 3), *between, *conv_bn_relu(256, 256, 3), *between, nn.Conv2d(256, 4, 1)]
        self.decoder.last_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        net, aspp, decoder = self.backbone, self.aspp, self.decoder
        low = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        x = net.layer4(net.layer3(net.layer2(low)))
        branches = [branch.bn(branch.atrous_conv(x)).relu() for name, branch in aspp.named_children() if "aspp" in name]
        branches.append(aspp.global_avg_pool(x).expand_as(branches[0]))
        x = aspp.bn1(aspp.conv1(torch.cat(branches, 1))).relu()
        low = decoder.bn1(decoder.conv1(low)).relu()
        return decoder.last_conv(torch.cat([Aligned(low.shape[-2:])(x), low], 1))


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [True, False])
def test_jfzhang95(convert: Callable[..., SegmentationModel], dropout: bool) -> None:
    theirs = randomise(JFZhang95(dropout))
    ours = convert(theirs, "deeplabv3plus", "jfzhang95")
    x = torch.randn(1, 3, 129, 97)
    with torch.no_grad():
        assert away(ours.coarse_logits(x)[0], theirs(x)) < 1e-4
    if dropout:  # the form of today
        goes_back(ours, "jfzhang95", theirs)


def test_a_model_of_ours_runs_in_torchvision(tmp_path: Path) -> None:
    """Trained here from timm's weights, whose tag is in the backbone's name, on the command line."""
    torch.manual_seed(0)
    ours = create_model("deeplabv3", backbone="resnet50.a1_in1k", num_classes=3, refine=True, aux=True).eval()
    randomise(ours)
    ours.save(tmp_path / "ours")
    for ending in ("pth", "safetensors"):
        file = tmp_path / f"theirs.{ending}"
        command = ["convert", "to-pytorch", "--model", tmp_path / "ours", "--layout", "torchvision", "--out", file]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0, result.output
        assert "it expects RGB / 255, minus (0.485, 0.456, 0.406)" in result.stdout
        assert "note: it runs at output stride 8 there, at 16 here" in result.stderr
        theirs = torchvision.models.segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, num_classes=3, aux_loss=True
        ).eval()
        theirs.load_state_dict(read_weights(file))
        ours.output_stride = 8
        x = torch.randn(1, 3, 97, 129)
        with torch.no_grad():
            assert away(ours.coarse_logits(x)[0], theirs.classifier(theirs.backbone(x)["out"])) < 1e-4


def test_variances_too_small_for_another_epsilon_move_into_the_weights() -> None:
    net = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    ours = create_model("deeplabv3", backbone="mobilenetv3_large_100", num_classes=21, **MOBILE).eval()
    randomise(ours)
    for name, norm in ours.backbone.named_modules():
        if isinstance(norm, nn.BatchNorm2d) and "bn2" in name:
            norm.running_var.mul_(1e-3)  # ours adds 1e-5, theirs 1e-3
    net.load_state_dict(export_pytorch(ours, "torchvision"))
    x = torch.randn(1, 3, 97, 97)
    with torch.no_grad():
        assert away(ours.coarse_logits(x)[0], net.classifier(net.backbone(x)["out"])) < 1e-4


MOBILE = {"refine": True, "rates": (12, 24, 36), "multi_grid": (2, 1, 1)}


@pytest.mark.parametrize(
    ("layout", "backbone", "options", "words"),
    [
        ("caffe", "resnet50", {}, "'caffe' is not a layout that can be written; available are torchvision, smp"),
        ("jfzhang95", "resnet50", {}, "jfzhang95 has deeplabv3plus on resnet101; this is deeplabv3 on resnet50"),
        ("torchvision", "resnet18", {}, "torchvision has deeplabv3, fcn on resnet50, "),
        ("torchvision", "resnet50", {"in_channels": 4}, "have 3 input channels, this one has 4"),
        ("torchvision", "resnet50", {"rates": (4, 8)}, r"has rates = \[6, 12, 18\] \(here \[4, 8\]\), refine = True"),
    ],
)
def test_what_another_program_does_not_have_is_not_written(
    layout: str, backbone: str, options: dict[str, object], words: str
) -> None:
    with torch.device("meta"):
        model = create_model("deeplabv3", backbone=backbone, num_classes=2, **options)
    with pytest.raises(ValueError, match=words):
        export_pytorch(model, layout)


@pytest.mark.parametrize(
    ("layout", "architecture", "tensor", "words"),
    [
        ("vainf", "deeplabv3plus", "backbone.low_level_features.0.0.weight", "pads before it expands"),
        ("jfzhang95", "deeplabv3plus", "backbone.conv3.conv1.weight", "another backbone than ResNet-101"),
        ("smp", "deeplabv3plus", "encoder.model.conv1.weight", "not a network on a known ResNet"),
        (
            "transformers",
            "deeplabv3",
            "mobilenet_v2.conv_stem.first_conv.weight",
            "has no tensor 'mobilenet_v2.layer.15",
        ),
    ],
)
def test_what_can_not_be_represented_is_said(
    tmp_path: Path, layout: str, architecture: str, tensor: str, words: str
) -> None:
    torch.save({tensor: torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(ConversionError, match=words):
        convert_pytorch(tmp_path / "net.pth", architecture, layout)


@pytest.mark.parametrize(
    ("layout", "architecture", "options", "words"),
    [
        ("smp", "fcn", {}, "layout 'smp' has deeplabv3, deeplabv3plus, not 'fcn'"),
        ("torchvision", "fcn", {"rates": [2, 4, 6]}, "fcn takes no rates"),
        ("smp", "deeplabv3", {"scales": [1, 2]}, "deeplabv3 takes no scales"),
        ("smp", "deeplabv3", {"inputs": "nyud-hha"}, "inputs are for an FCN"),
    ],
)
def test_options_of_others_are_refused(
    tmp_path: Path, layout: str, architecture: str, options: dict[str, object], words: str
) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=words):
        convert_pytorch(tmp_path / "net.pth", architecture, layout, **options)
