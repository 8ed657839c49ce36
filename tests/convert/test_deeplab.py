"""DeepLab v1 and v2 under the names that others gave their layers: converted, they score as the literal nets do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from atrous.convert.caffe import convert_caffe
from atrous.convert.pytorch import convert_pytorch
from atrous.convert.tensors import ConversionError
from atrous.label_sets import VOC
from atrous.labels import LabelSet
from atrous.models import SegmentationModel, load
from atrous.models.multi_scale import MultiScale

Write = Callable[..., Path]
Weights = dict[str, Tensor]
MEAN_BGR = torch.tensor([104.008, 116.669, 122.675])[:, None, None]
BLOCKS = (3, 4, 23, 3)
IMAGE = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 41, 57), np.uint8))


def blue_first(image: Tensor) -> Tensor:
    return image.flip(1).float() - MEAN_BGR


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5


def vgg(branches: int, kernel: int = 3, width: int = 64) -> dict[str, list[np.ndarray]]:
    random = np.random.default_rng(0)

    def conv(outputs: int, inputs: int, kernel: int) -> list[np.ndarray]:
        weight = random.normal(0, np.sqrt(2 / (inputs * kernel**2)), (outputs, inputs, kernel, kernel))
        return [weight.astype(np.float32), random.normal(0, 0.1, outputs).astype(np.float32)]

    blobs, inputs = {}, 3
    for block, (count, outputs) in enumerate(((2, 4), (2, 8), (3, 16), (3, 32), (3, 32)), 1):
        for number in range(1, count + 1):
            blobs[f"conv{block}_{number}"] = conv(outputs, inputs, 3)
            inputs = outputs
    for ending in [""] if branches == 1 else [f"_{i}" for i in range(1, branches + 1)]:
        blobs |= {f"fc6{ending}": conv(width, 32, kernel), f"fc7{ending}": conv(width, width, 1)}
        blobs[f"fc8_voc12{ending}"] = conv(21, width, 1)
    return blobs


def caffe_vgg(blobs: dict[str, list[np.ndarray]], x: Tensor, rates: tuple[int, ...]) -> Tensor:
    def conv(name: str, x: Tensor, **options: int) -> Tensor:
        return F.conv2d(x, *map(torch.from_numpy, blobs[name]), **options)

    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        rate = 2 if block == 5 else 1
        for number in range(1, count + 1):
            x = conv(f"conv{block}_{number}", x, padding=rate, dilation=rate).relu()
        x = F.max_pool2d(x, 3, 2 if block < 4 else 1, 1)
    x = F.avg_pool2d(x, 3, 1, 1)
    scores = []
    for number, rate in enumerate(rates, 1):
        ending = "" if len(rates) == 1 else f"_{number}"
        padding = rate * (blobs[f"fc6{ending}"][0].shape[-1] - 1) // 2
        hidden = conv(f"fc6{ending}", x, padding=padding, dilation=rate).relu()
        scores.append(conv(f"fc8_voc12{ending}", conv(f"fc7{ending}", hidden).relu()))
    return sum(scores[1:], scores[0])


@pytest.mark.parametrize(
    ("architecture", "branches", "kernel", "rates", "said"),
    [
        ("deeplab_largefov", 1, 3, (12,), None),
        ("deeplab_largefov", 1, 7, (4,), None),
        ("deeplab_largefov", 1, 4, (4,), None),
        ("deeplab_largefov", 1, 4, (8,), (8,)),
        ("deeplab_aspp", 4, 3, (6, 12, 18, 24), None),
        ("deeplab_aspp", 4, 3, (2, 4, 8, 12), (2, 4, 8, 12)),  # ASPP-S: a file does not tell
    ],
)
def test_vgg_scores_as_the_released_net(
    thin: None,
    write_caffemodel: Write,
    architecture: str,
    branches: int,
    kernel: int,
    rates: tuple[int, ...],
    said: tuple[int, ...] | None,
) -> None:
    blobs = vgg(branches, kernel)
    model = convert_caffe(write_caffemodel(blobs, "old"), architecture, rates=said)
    with torch.no_grad():
        ours, _ = model.coarse_logits(model.preprocess(IMAGE))
        close(ours, caffe_vgg(blobs, blue_first(IMAGE), rates))
    assert model.label_set == VOC


class Bottleneck(nn.Module):
    """isht7's: the stride is on the first convolution."""

    def __init__(self, inputs: int, width: int, stride: int, rate: int, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(4 * width)
        if first:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class Summed(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        rates = (6, 12, 18, 24)
        self.conv2d_list = nn.ModuleList(nn.Conv2d(inputs, classes, 3, padding=r, dilation=r) for r in rates)


class ResNet(nn.Module):
    """isht7's network, of which four layers are literal and the rest is repeated."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, (count, width, stride, rate) in enumerate(
            zip(BLOCKS, (64, 128, 256, 512), (1, 2, 1, 1), (1, 1, 2, 4), strict=True), 1
        ):
            blocks = [Bottleneck(inputs, width, stride, rate, True)]
            inputs = 4 * width
            blocks += [Bottleneck(inputs, width, 1, rate, False) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.layer5 = Summed(2048, classes)

    def forward(self, x: Tensor, branches: int = 4) -> Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1, ceil_mode=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return sum(layer(x) for layer in self.layer5.conv2d_list[:branches])


@pytest.fixture(scope="module")
def resnet() -> ResNet:
    torch.manual_seed(0)
    net = ResNet(21).eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.running_var):
                nn.init.uniform_(tensor, 0.2, 0.4)
            for tensor in (norm.bias, norm.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return net


@pytest.fixture(scope="module")
def scores(resnet: ResNet) -> Callable[[int], Tensor]:
    with torch.no_grad():
        found = {branches: resnet(blue_first(IMAGE), branches) for branches in (2, 4)}
    return found.__getitem__


def stem_or_block(name: str) -> tuple[int, int, str, str] | None:
    """``layer3.5.downsample.0.weight`` → 3, 5, ``downsample.0``, ``weight``."""
    layer, _, kind = name.rpartition(".")
    parts = layer.split(".")
    if not parts[0].startswith("layer") or parts[0] == "layer5":
        return None
    return int(parts[0][5:]), int(parts[1]), ".".join(parts[2:]), kind


def in_kazutos_names(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    parts = {"1": "reduce", "2": "conv3x3", "3": "increase"}
    for name, tensor in weights.items():
        if place := stem_or_block(name):
            stage, block, part, kind = place
            if part.startswith("downsample"):
                unit = "shortcut." + ("conv" if part.endswith("0") else "bn")
            else:
                unit = f"{parts[part[-1]]}.{part[:-1]}"
            yield f"base.layer{stage + 1}.block{block + 1}.{unit}.{kind}", tensor
        elif name.startswith("layer5"):
            yield name.replace("layer5.conv2d_list.", "base.aspp.c"), tensor
        else:
            yield name.replace("conv1", "base.layer1.conv1.conv").replace("bn1", "base.layer1.conv1.bn"), tensor


def in_caffes_names(weights: Weights) -> dict[str, list[np.ndarray]]:
    """As DeepLab v2's file has them: sums in batch norm, and each layer three times."""
    blobs: dict[str, list[np.ndarray]] = {}
    factor = 999.98  # Caffe sums a moving average of means with a factor

    def put(layer: str, arrays: list[np.ndarray]) -> None:
        for ending in ("", "_res075", "_res05"):
            blobs[layer + ending] = arrays

    for name, tensor in weights.items():
        array = tensor.numpy()
        if name.startswith("layer5"):
            if name.endswith("weight"):
                put(f"fc1_voc12_c{name.split('.')[2]}", [array, weights[name.replace("weight", "bias")].numpy()])
        elif name.endswith("weight"):
            layer = "conv1"
            if place := stem_or_block(name):
                stage, block, part, _ = place
                letter = {(1, 1): "b", (1, 2): "c", (4, 1): "b", (4, 2): "c"}.get(
                    (stage, block), f"b{block}" if block else "a"
                )
                branch = "1" if part.startswith("downsample") else "2" + "abc"[int(part[-1]) - 1]
                layer = f"{stage + 1}{letter}_branch{branch}"
            if array.ndim == 4:
                put(layer if layer == "conv1" else f"res{layer}", [array])
                continue
            layer = "_conv1" if layer == "conv1" else layer
            stats = [weights[name.replace("weight", kind)].numpy() for kind in ("running_mean", "running_var")]
            put(f"bn{layer}", [*(factor * each for each in stats), np.array([factor], np.float32)])
            put(f"scale{layer}", [array, weights[name.replace("weight", "bias")].numpy()])
    return blobs


def one_scale(model: SegmentationModel) -> SegmentationModel:
    return model.base if isinstance(model, MultiScale) else model


@pytest.mark.slow
class TestResNet101:
    @pytest.mark.parametrize("layout", ["isht7", "adaptsegnet"])
    def test_in_isht7s_names(
        self, resnet: ResNet, scores: Callable[[int], Tensor], tmp_path: Path, layout: str
    ) -> None:
        weights = resnet.state_dict()
        if layout == "isht7":
            weights = {f"Scale.{k}": v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
            torch.save(weights, file := tmp_path / "VOC12_scenes_20000.pth")
        else:  # whose class returns after two of its four convolutions
            file = tmp_path / "single.safetensors"
            save_file(weights, file)
        model = convert_pytorch(file, "deeplab_aspp", layout)
        with torch.no_grad():
            ours, _ = one_scale(model).coarse_logits(model.preprocess(IMAGE))
        close(ours, scores(4 if layout == "isht7" else 2))
        assert isinstance(model, MultiScale) == (layout == "isht7")
        assert (model.label_set, model.card["converted_from"]) == (VOC, file.name)

    def test_adaptsegnets_second_classifier_was_for_training(
        self, resnet: ResNet, scores: Callable[[int], Tensor], tmp_path: Path
    ) -> None:
        weights = {f"module.{k.replace('layer5', 'layer6')}": v for k, v in resnet.state_dict().items()}
        weights |= {f"module.layer5.{k}": v for k, v in Summed(1024, 21).state_dict().items()}
        torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "multi.pth")
        model = convert_pytorch(tmp_path / "multi.pth", "deeplab_aspp", "adaptsegnet")
        other, untrained = (
            [f"layer{i}.conv2d_list.{j}." for j in numbers] for i, numbers in ((5, range(4)), (6, (2, 3)))
        )
        tensors = {f"{layer}{kind}" for layer in other + untrained for kind in ("weight", "bias")}
        assert model.card["left_out"][0] == "epoch"
        assert set(model.card["left_out"][1:]) == tensors
        with torch.no_grad():
            ours, _ = model.coarse_logits(model.preprocess(IMAGE))
        close(ours, scores(2))

    def test_in_kazutos_names(self, resnet: ResNet, scores: Callable[[int], Tensor], tmp_path: Path) -> None:
        weights = dict(in_kazutos_names(resnet.state_dict()))
        assert {"base.layer1.conv1.bn.bias", "base.layer2.block1.shortcut.conv.weight"} <= weights.keys()
        assert {"base.layer4.block23.conv3x3.bn.running_var", "base.aspp.c3.bias"} <= weights.keys()
        torch.save(weights, tmp_path / "kazuto.pth")
        names = LabelSet(tuple(f"thing {i}" for i in range(21)))
        model = convert_pytorch(tmp_path / "kazuto.pth", "deeplab_aspp", "kazuto1011", label_set=names)
        again = load(model.save(tmp_path / "model"))
        with torch.no_grad():
            ours, _ = one_scale(again).coarse_logits(again.preprocess(IMAGE))
        close(ours, scores(4))
        assert again.label_set == names

    def test_in_caffes_names(self, resnet: ResNet, scores: Callable[[int], Tensor], write_caffemodel: Write) -> None:
        blobs = in_caffes_names(resnet.state_dict())
        assert {
            "bn_conv1",
            "scale2c_branch2a",
            "res3b3_branch2c",
            "res4b22_branch2b_res05",
            "fc1_voc12_c3",
        } <= blobs.keys()
        file = write_caffemodel(blobs)
        merged, single = convert_caffe(file, "deeplab_aspp"), convert_caffe(file, "deeplab_aspp", scales=(1,))
        with torch.no_grad():
            ours, _ = single.coarse_logits(single.preprocess(IMAGE))
            largest, _ = merged.coarse_logits(merged.preprocess(IMAGE))
        close(ours, scores(4))
        assert isinstance(merged, MultiScale)
        assert (merged.scales, merged.merge) == ((1, 0.75, 0.5), "max")
        assert (largest > ours - 1e-4 * ours.abs().max()).all()
        blobs["res4b22_branch2b_res05"] = [blobs["res4b22_branch2b_res05"][0] + 1]
        with pytest.raises(
            ConversionError, match=r"res4b22_branch2b_res05 should share its parameters with res4b22_branch2b$"
        ):
            convert_caffe(write_caffemodel(blobs), "deeplab_aspp")


class TestWhatDoesNotFit:
    def test_branches(self, thin: None, write_caffemodel: Write) -> None:
        one, four = (write_caffemodel(vgg(n), name=f"{n}.caffemodel") for n in (1, 4))
        with pytest.raises(ConversionError, match=r"1\.caffemodel has 1 branch\(es\): convert it as deeplab_largefov"):
            convert_caffe(one, "deeplab_aspp")
        with pytest.raises(ConversionError, match=r"4\.caffemodel has 4 branch\(es\): convert it as deeplab_aspp"):
            convert_caffe(four, "deeplab_largefov")
        with pytest.raises(ValueError, match=r"2 rates for the 4 branch\(es\)"):
            convert_caffe(four, "deeplab_aspp", rates=(6, 12))
        with pytest.raises(ValueError, match="inputs are for an FCN, not for deeplab_aspp"):
            convert_caffe(four, "deeplab_aspp", inputs="voc")
        with pytest.raises(ValueError, match=r"scales are for deeplab_aspp, not for deeplab_largefov"):
            convert_caffe(one, "deeplab_largefov", scales=(1, 0.5))
        with pytest.raises(ValueError, match="rates and scales are for a DeepLab, not for fcn8s"):
            convert_caffe(four, "fcn8s", rates=(6,))
        with pytest.raises(ConversionError, match=r"is not an FCN|has no tensor 'score_fr\.weight'"):
            convert_caffe(four, "fcn8s")
        blobs = vgg(4)
        del blobs["fc7_3"]
        blobs["fc9"] = blobs["fc7_1"]
        with pytest.raises(
            ConversionError,
            match=r"2 missing: fc7_3\.weight 64×64×1×1, fc7_3\.bias 64; 2 unused: fc9\.weight 64×64×1×1, fc9\.bias",
        ):
            convert_caffe(write_caffemodel(blobs), "deeplab_aspp")

    def test_other_nets(self, write_caffemodel: Write) -> None:
        file = write_caffemodel({"ip1": [np.ones((2, 3), np.float32)]})
        with pytest.raises(ConversionError, match=r"is not a DeepLab: expected conv1_1, .* found ip1"):
            convert_caffe(file, "deeplab_aspp")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ({"conv1.weight": 3}, "contains no state dict"),
            ([1, 2], "contains no state dict"),
            (None, "can't be read as PyTorch"),
        ],
    )
    def test_files(self, tmp_path: Path, content: object, words: str) -> None:
        file = tmp_path / "net.pth"
        torch.save(content, file) if content else file.write_bytes(b"nothing")
        with pytest.raises(ConversionError, match=rf"net\.pth {words}"):
            convert_pytorch(file, "deeplab_aspp", "isht7")

    def test_layouts(self, tmp_path: Path) -> None:
        torch.save({"a.weight": torch.ones(2)}, file := tmp_path / "net.pth")
        with pytest.raises(ValueError, match="unknown layout 'mine'; available are caffe, wkentaro"):
            convert_pytorch(file, "deeplab_aspp", "mine")
        with pytest.raises(ValueError, match="layout 'isht7' has deeplab_aspp, not 'fcn8s'"):
            convert_pytorch(file, "fcn8s", "isht7")
        with pytest.raises(
            ConversionError, match=r"has no tensor 'layer5\.conv2d_list\.0\.weight'; it begins with a\.weight"
        ):
            convert_pytorch(file, "deeplab_aspp", "isht7")
