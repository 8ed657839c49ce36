"""Forward passes of DeepLab v1 and v2 on the CPU beside literal rewrites: ``python -m benchmarks.deeplab``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.models import SegmentationModel
from benchmarks._compare import Comparison, write_comparisons
from benchmarks._networks import CLASSES, DTYPES, FLOOR_NOTE, SEED, VGG16, compare_forward, random_network

CASES = (("deeplab_largefov", "vgg16", 306), ("deeplab_largefov", "vgg16", 321), ("deeplab_aspp", "resnet101", 513))
"""Network, backbone, side of the image."""


class Resized(nn.Module):
    """The end of both rewrites: coarse logits resized to the image's size, with aligned corners."""

    def coarse_logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        return F.interpolate(self.coarse_logits(x), size=size, mode="bilinear", align_corners=True)


class LargeFOV(Resized):
    """DeepLab-LargeFOV by the table of its ``train.prototxt``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 3
        for block, (count, width) in enumerate(VGG16, 1):
            rate = 2 if block == 5 else 1
            for _ in range(count):
                layers += [nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate), nn.ReLU(inplace=True)]
                in_channels = width
            layers.append(nn.MaxPool2d(3, stride=2 if block < 4 else 1, padding=1))
        layers.append(nn.AvgPool2d(3, stride=1, padding=1))
        layers += [nn.Conv2d(512, 1024, 3, padding=12, dilation=12), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(1024, CLASSES, 1)]
        self.layers = nn.Sequential(*layers)

    def coarse_logits(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Bottleneck(nn.Module):
    """A block of Caffe's ResNet, as github.com/isht7/pytorch-deeplab-resnet writes it."""

    def __init__(self, in_channels: int, width: int, stride: int, rate: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        convolution = nn.Conv2d(in_channels, 4 * width, 1, stride, bias=False)
        self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(4 * width)) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(y)
        return result


class ResNetASPP(Resized):
    """DeepLab v2 on ResNet-101."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        in_channels = 64
        for number, (blocks, stride, rate) in enumerate(((3, 1, 1), (4, 2, 1), (23, 1, 2), (3, 1, 4)), 1):
            width, layer = 32 * 2**number, []
            for block in range(blocks):
                layer.append(Bottleneck(in_channels, width, 1 if block else stride, rate, block == 0))
                in_channels = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*layer))
        rates = (6, 12, 18, 24)
        self.layer5 = nn.ModuleList(nn.Conv2d(2048, CLASSES, 3, padding=r, dilation=r) for r in rates)

    def coarse_logits(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        total: Tensor = self.layer5[0](x)
        for branch in list(self.layer5)[1:]:
            total += branch(x)
        return total


def literal(model: SegmentationModel, backbone: str) -> Resized:
    """The rewrite with the model's weights: the layers come in the same order."""
    peer: Resized = (LargeFOV() if backbone == "vgg16" else ResNetASPP()).eval()
    slots, weights = peer.state_dict(), model.state_dict()
    assert [v.shape for v in slots.values()] == [v.shape for v in weights.values()]
    peer.load_state_dict({k: v.contiguous() for k, v in zip(slots, weights.values(), strict=True)})
    return peer


def coarse_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits at network resolution."""
    assert isinstance(network, SegmentationModel | Resized)
    found = network.coarse_logits(images)
    return found[0] if isinstance(found, tuple) else found


def case_rows(name: str, backbone: str, side: int) -> tuple[list[Comparison], list[str]]:
    """The rows and notes of a network at a size."""
    rows, notes = [], []
    peer = literal(random_network(name, backbone, torch.float32), backbone)
    for dtype in DTYPES:
        label = f"{name} {backbone}, {side}×{side}, cpu, {str(dtype).removeprefix('torch.')}"
        found = compare_forward(label, random_network(name, backbone, dtype), peer, side, coarse_logits)
        rows.append(found.comparison)
        best, theirs = min(rows[-1].ours_seconds), min(rows[-1].peer_seconds)
        notes.append(
            f"{label}: {1 / best:.3g} images/s (rewrite {1 / theirs:.3g}); {found.multiply_adds / 1e9:.0f} G "
            f"multiply-adds, at best {found.share:.0f} % of the matrix rate ({found.rate / 1e12:.3g} T "
            f"multiply-adds/s); coarse logits within {found.off:.1e} of the rewrite's."
        )
    return rows, notes


def main() -> None:
    rows: list[Comparison] = []
    notes = [
        "The paper: LargeFOV labels 8 images of 306×306 per second on a Titan, logits 39×39 (arXiv 1412.7062, §3.2).",
        "One image per forward pass, logits at its own size. Both networks have the same random weights; ours is "
        "channels-last, and its bfloat16 includes the weights.",
        f"{FLOOR_NOTE}.",
    ]
    for case in CASES:
        case_comparisons, case_notes = case_rows(*case)
        rows += case_comparisons
        notes += case_notes
    write_comparisons("deeplab", "DeepLab v1 and v2: forward passes", rows, seed=SEED, notes=notes)


if __name__ == "__main__":
    main()
