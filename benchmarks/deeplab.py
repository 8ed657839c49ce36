"""Forwards of DeepLab v1 and v2 on the CPU beside literal rewrites: ``python -m benchmarks.deeplab``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.models import SegmentationModel, create_model
from benchmarks._harness import Comparison, compare, write
from benchmarks.fcn import BLOCKS, forward, image, matrix_rate, multiply_adds

SEED = 0
CLASSES = 21
ROUNDS = 5
PEER = "literal rewrite, float32"
CASES = (("deeplab_largefov", "vgg16", 306), ("deeplab_largefov", "vgg16", 321), ("deeplab_aspp", "resnet101", 513))


class Zoomed(nn.Module):
    """The end of both rewrites: scores stretched over the image, with aligned corners."""

    def scores(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        return F.interpolate(self.coarse_logits(x), size=size, mode="bilinear", align_corners=True)


class LargeFOV(Zoomed):
    """DeepLab-LargeFOV by the table of its ``train.prototxt``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for block, (count, width) in enumerate(BLOCKS, 1):
            rate = 2 if block == 5 else 1
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=rate, dilation=rate), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(3, stride=2 if block < 4 else 1, padding=1))
        layers.append(nn.AvgPool2d(3, stride=1, padding=1))
        layers += [nn.Conv2d(512, 1024, 3, padding=12, dilation=12), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(1024, CLASSES, 1)]
        self.layers = nn.Sequential(*layers)

    def scores(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Bottleneck(nn.Module):
    """A block of Caffe's ResNet, as github.com/isht7/pytorch-deeplab-resnet writes it."""

    def __init__(self, inputs: int, width: int, stride: int, rate: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        convolution = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
        self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(4 * width)) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(y)
        return result


class ResNetASPP(Zoomed):
    """DeepLab v2 on ResNet-101."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        inputs = 64
        for number, (blocks, stride, rate) in enumerate(((3, 1, 1), (4, 2, 1), (23, 1, 2), (3, 1, 4)), 1):
            width, layer = 32 * 2**number, []
            for block in range(blocks):
                layer.append(Bottleneck(inputs, width, 1 if block else stride, rate, block == 0))
                inputs = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*layer))
        rates = (6, 12, 18, 24)
        self.layer5 = nn.ModuleList(nn.Conv2d(2048, CLASSES, 3, padding=r, dilation=r) for r in rates)

    def scores(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        total: Tensor = self.layer5[0](x)
        for branch in list(self.layer5)[1:]:
            total += branch(x)
        return total


def ours(name: str, backbone: str, dtype: torch.dtype) -> SegmentationModel:
    """With random weights that keep what is in an image, down to scores that differ."""
    torch.manual_seed(SEED)
    model = create_model(name, backbone=backbone, num_classes=CLASSES).eval()
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d) and key.endswith("bn3"):
            nn.init.constant_(layer.weight, 0.2)  # or the sums of 33 blocks grow without end
    return model.to(dtype, memory_format=torch.channels_last)


def literal(model: SegmentationModel, backbone: str) -> Zoomed:
    """The rewrite with the model's weights: the layers come in the same order."""
    peer: Zoomed = (LargeFOV() if backbone == "vgg16" else ResNetASPP()).eval()
    slots, weights = peer.state_dict(), model.state_dict()
    assert [v.shape for v in slots.values()] == [v.shape for v in weights.values()]
    peer.load_state_dict({k: v.contiguous() for k, v in zip(slots, weights.values(), strict=True)})
    return peer


def case_rows(name: str, backbone: str, side: int) -> tuple[list[Comparison], list[str]]:
    """The rows and notes of a network at a size."""
    rows, notes = [], []
    model = ours(name, backbone, torch.float32)
    peer = literal(model, backbone)
    plain = image(side, torch.float32).contiguous()
    with torch.inference_mode():
        expected = peer.coarse_logits(plain)
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        network = model if dtype == torch.float32 else ours(name, backbone, dtype)
        images = image(side, dtype)
        with torch.inference_mode():
            scores, _ = network.coarse_logits(images)
        away = ((scores.float() - expected).abs().max() / expected.abs().max()).item()
        assert away < (1e-4 if dtype == torch.float32 else 0.1), f"{name}, {kind}: scores differ by {away:.1e}"
        count, rate = multiply_adds(network, images), matrix_rate(dtype)
        label = f"{name} {backbone}, {side}×{side}, cpu, {kind}"
        run, theirs = forward(network, images), forward(peer, plain)
        rows.append(compare(label, run, theirs, peer_name=PEER, floor=count / rate, rounds=ROUNDS))
        best, peers = min(rows[-1].ours_seconds), min(rows[-1].peer_seconds)
        notes.append(
            f"{label}: {1 / best:.3g} images/s (rewrite {1 / peers:.3g}); {count / 1e9:.0f} G multiply-adds, at best "
            f"{100 * count / rate / best:.0f} % of the matrix rate ({rate / 1e12:.3g} T multiply-adds/s); "
            f"scores within {away:.1e} of the rewrite's."
        )
    return rows, notes


def main() -> None:
    rows: list[Comparison] = []
    notes = [
        "The paper: LargeFOV labels 8 images of 306×306 a second on a Titan, scores 39×39 (arXiv 1412.7062, §3.2).",
        "One image a forward, logits at its own size. Both networks hold the same random weights; ours is "
        "channels-last, and its bfloat16 is in the weights too.",
        "Floor: our multiply-adds at the rate of a large matrix product in the same type, measured in this run.",
    ]
    for name, backbone, side in CASES:
        found, said = case_rows(name, backbone, side)
        rows += found
        notes += said
    write("deeplab", "DeepLab v1 and v2: forwards", rows, seed=SEED, peers=(), notes=notes)


if __name__ == "__main__":
    main()
