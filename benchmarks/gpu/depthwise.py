"""Depthwise layers, forward and backward: cuDNN's in both memory formats, and ours in channels-last."""

from __future__ import annotations

import itertools
import statistics
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.ops.depthwise.op import compiled_depthwise
from benchmarks.gpu._measure import Measured, Rows, Sizes, attempt, call_seconds, measured


@dataclass(frozen=True)
class Layer:
    """A depthwise layer and the side of its input."""

    channels: int
    side: int
    kernel: int
    rate: int
    stride: int


LAYERS = (
    Layer(728, 33, 3, 2, 1),
    Layer(2048, 33, 3, 12, 1),
    Layer(256, 129, 3, 1, 1),
    Layer(320, 33, 3, 12, 1),
    Layer(960, 33, 5, 2, 1),
    Layer(96, 257, 3, 1, 2),
    Layer(144, 129, 5, 1, 2),
)


def rows(device: torch.device, sizes: Sizes) -> Rows:
    """Each layer in each form."""
    for layer, form in itertools.product(LAYERS, ("ours", "channels-last", "contiguous")):
        shape = f"{sizes.batch}×{layer.channels}×{layer.side}²"
        name = f"{layer.kernel}×{layer.kernel} rate {layer.rate} stride {layer.stride}, {shape}, {form}"
        yield attempt(name, partial(forward_and_backward, name, device, sizes.batch, layer, form))


def forward_and_backward(name: str, device: torch.device, batch: int, layer: Layer, form: str) -> Measured:
    """A layer in bfloat16."""
    memory_format = torch.contiguous_format if form == "contiguous" else torch.channels_last
    x = torch.randn(batch, layer.channels, layer.side, layer.side, device=device, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=memory_format)
    weight = torch.randn(layer.channels, 1, layer.kernel, layer.kernel, device=device, dtype=torch.bfloat16)
    padding = layer.rate * (layer.kernel // 2)

    def forward() -> Tensor:
        with compiled_depthwise(x) if form == "ours" else nullcontext():
            return F.conv2d(x, weight, None, layer.stride, padding, layer.rate, layer.channels)

    alone = statistics.median(call_seconds(forward, device))
    x.requires_grad_()
    weight.requires_grad_()
    gradient = torch.randn_like(forward())

    def work() -> None:
        torch.autograd.grad(forward(), (x, weight), gradient)

    moved = 3 * (x.numel() + gradient.numel()) * x.element_size()  # x twice and its gradient, y, its gradient twice
    row = measured(name, work, device, images=0)
    bandwidth = moved / row.median / 1e12
    return replace(row, remarks=f"forward alone {1000 * alone:.3f} ms; both {bandwidth:.2f} TB/s of the bytes to move")
