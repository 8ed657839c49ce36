"""Depthwise convolutions on the CPU beside PyTorch's: ``python -m benchmarks.depthwise``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import atrous
from atrous.models import base
from atrous.ops.depthwise import op as depthwise
from atrous.ops.depthwise.op import compiled_depthwise
from benchmarks._compare import Comparison, compare, copy_bandwidth, write_comparisons

SEED = 0
TORCH = "torch (oneDNN)"


def layer(
    channels: int, size: int, kernel: int, rate: int, stride: int, dtype: torch.dtype, *, learns: bool
) -> Comparison:
    """A layer on a batch of 8 in training, or on one image."""
    batch = 8 if learns else 1
    x = torch.randn(batch, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel, dtype=dtype)
    x.requires_grad_(learns)
    weight.requires_grad_(learns)
    padding = rate * (kernel // 2)

    def run() -> Tensor:
        return F.conv2d(x, weight, None, stride, padding, rate, channels)

    gradient = torch.randn_like(run())

    def work() -> None:
        y = run()
        if learns:
            torch.autograd.grad(y, (x, weight), gradient)

    def ours() -> None:
        with compiled_depthwise(x):
            work()

    # In training: x twice, its gradient twice; y and its gradient.
    maps = (4 if learns else 1) * x.numel() + (2 if learns else 1) * gradient.numel()
    moved = maps * x.element_size()
    floor = moved / copy_bandwidth(moved // 2) / torch.get_num_threads()
    what = "forward and backward" if learns else "forward"
    form = f"{kernel}×{kernel}" + (f" rate {rate}" if rate > 1 else "") + (f" stride {stride}" if stride > 1 else "")
    name = f"{form}, {batch}×{channels}×{size}², {str(dtype).removeprefix('torch.')}, {what}"
    return compare(name, ours, work, peer_name=TORCH, floor=floor, rounds=5)


def network(name: str, backbone: str, stride: int, **options: Any) -> list[Comparison]:
    """A training step on 8 crops of 257², and coarse logits of an image of 513²."""
    model = atrous.create_model(name, backbone=backbone, num_classes=21, output_stride=stride, **options)
    model.to(memory_format=torch.channels_last)
    crops, image = (torch.randn(b, 3, n, n).to(memory_format=torch.channels_last) for b, n in ((8, 257), (1, 513)))

    def step() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.outputs(crops)[0].logits
        logits.float().square().mean().backward()

    def infer() -> None:
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            model.coarse_logits(image)

    title = f"{name} on {backbone}, output stride {stride}"
    return [
        compare(f"{title}: a step of 8 × 257², bfloat16", step, without(step), peer_name=TORCH, rounds=3),
        compare(f"{title}: an image of 513², bfloat16", infer, without(infer), peer_name=TORCH, rounds=5),
    ]


def without(work: Callable[[], None]) -> Callable[[], None]:
    """The same network with PyTorch's layers only."""

    def run() -> None:
        try:
            base.compiled_depthwise = lambda _: nullcontext()  # type: ignore[assignment]
            work()
        finally:
            base.compiled_depthwise = depthwise.compiled_depthwise

    return run


def main() -> None:
    torch.manual_seed(SEED)
    half, whole = torch.bfloat16, torch.float32
    comparisons = [
        layer(1152, 33, 5, 4, 1, half, learns=True),
        layer(1152, 33, 5, 4, 1, whole, learns=True),
        layer(1152, 33, 5, 1, 1, half, learns=True),
        layer(672, 33, 5, 2, 1, half, learns=True),
        layer(480, 33, 3, 2, 1, half, learns=True),
        layer(144, 129, 3, 1, 2, half, learns=True),
        layer(2048, 65, 3, 36, 1, half, learns=False),
        layer(2048, 65, 3, 36, 1, whole, learns=False),
        layer(1152, 65, 5, 4, 1, half, learns=False),
        *network("deeplabv3plus", "tf_efficientnet_lite0", 16, separable=True),
        *network("deeplabv3plus", "tf_efficientnet_lite0", 8, separable=True),
        *network("deeplabv3plus", "mobilenetv2_100", 16, separable=True),
        *network("deeplabv3plus", "xception65", 8, separable=True),
    ]
    notes = [
        "Both sides are the same network with the same weights; the peer's layers are PyTorch's.",
        "Floor: the bytes of feature maps that must be read and written (the weights' gradient reads its input again), "
        "at the speed of a copy in one thread, times the threads.",
    ]
    write_comparisons("depthwise", "Depthwise convolutions", comparisons, seed=SEED, peers=("numba",), notes=notes)


if __name__ == "__main__":
    main()
