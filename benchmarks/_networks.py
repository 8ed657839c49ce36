"""Forward passes of a network on the CPU beside a literal rewrite with the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from atrous.models import SegmentationModel, create_model
from benchmarks._compare import Comparison, Work, compare

SEED = 0
CLASSES = 21
ROUNDS = 5
DTYPES = (torch.float32, torch.bfloat16)
PEER = "literal rewrite, float32"
VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels of each block."""
MATRIX = 4096
"""Side of the matrices whose product measures the machine's rate."""
MOST_OFF = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference from the rewrite, as a share of its largest logit."""
FLOOR_NOTE = "Floor: our multiply-adds at the rate of a large matrix product in the same type, measured in this run"


@dataclass(frozen=True)
class Forward:
    """A forward pass of ours beside the rewrite's."""

    comparison: Comparison
    logits: Tensor
    off: float
    """Largest difference from the rewrite's logits, as a share of their largest."""
    multiply_adds: int
    rate: float
    """Multiply-adds per second of a large matrix product."""

    @property
    def share(self) -> float:
        """The share of the matrix rate at best, in percent."""
        return 100 * self.multiply_adds / self.rate / min(self.comparison.ours_seconds)


def random_image(side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A smooth random image ``(1, 3, side, side)``, channels-last."""
    coarse = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(SEED))
    image = F.interpolate(coarse, (side, side), mode="bicubic").to(dtype)
    return image.contiguous(memory_format=torch.channels_last)


def random_network(name: str, backbone: str, dtype: torch.dtype) -> SegmentationModel:
    """A network of ours whose random weights keep the signal through all layers, down to logits that differ."""
    torch.manual_seed(SEED)
    model = create_model(name, backbone=backbone, num_classes=CLASSES).eval()
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d) and key.endswith("bn3"):
            nn.init.constant_(layer.weight, 0.2)  # or the sums of 33 blocks grow without end
    return model.to(dtype, memory_format=torch.channels_last)


def forward(network: nn.Module, images: Tensor) -> Work:
    """A call of a network."""

    def run() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = network(images)
            return logits

    return run


def compare_forward(
    label: str,
    model: SegmentationModel,
    peer: nn.Module,
    side: int,
    logits_of: Callable[[nn.Module, Tensor], Tensor] = lambda network, images: network(images),
) -> Forward:
    """Compare a forward pass with the float32 rewrite's; ``logits_of`` gives the logits that must agree."""
    dtype = next(model.parameters()).dtype
    images, plain = random_image(side, dtype), random_image(side).contiguous()
    with torch.inference_mode():
        logits, expected = logits_of(model, images), logits_of(peer, plain)
    off = ((logits.float() - expected).abs().max() / expected.abs().max()).item()
    assert off < MOST_OFF[dtype], f"{label}: logits differ by {off:.1e}"
    count, rate = multiply_adds(model, images), matrix_rate(dtype)
    theirs = forward(peer, plain)
    row = compare(label, forward(model, images), theirs, peer_name=PEER, floor=count / rate, rounds=ROUNDS)
    return Forward(row, logits, off, count, rate)


def matrix_rate(dtype: torch.dtype) -> float:
    """Multiply-adds per second of a large matrix product: the best of six."""
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))

    def seconds() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        return time.perf_counter() - begin

    return MATRIX**3 / min(seconds() for _ in range(6))


def multiply_adds(network: nn.Module, images: Tensor) -> int:
    """Multiply-adds of a forward pass, by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(images)
    return counter.get_total_flops() // 2
