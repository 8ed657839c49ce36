"""Depthwise convolutions in Triton beside torch's."""

import pytest
import torch
from torch import Tensor

from atrous.ops.depthwise.op import depthwise_reference

SHAPES = [  # kernel, stride, dilation, padding, channels, size
    ((3, 3), 1, 1, 1, 70, (7, 9)),
    ((5, 5), 1, 2, 4, 32, (9, 8)),
    ((3, 3), 2, 1, 1, 40, (9, 12)),
    ((5, 5), 2, 1, 2, 33, (10, 7)),
    ((3, 5), 2, 3, 2, 64, (15, 15)),
    ((3, 3), 1, 12, 12, 64, (7, 7)),  # only the middle of the kernel lies in the image
]


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding", "channels", "size"), SHAPES)
def test_values_and_gradients_are_torchs(device, kernel, stride, dilation, padding, channels, size, dtype):
    from atrous.ops.depthwise import triton_kernels as depthwise_gpu

    x = torch.randn(2, channels, *size, device=device).to(dtype).double().requires_grad_()
    weight = torch.randn(channels, 1, *kernel, device=device).double().requires_grad_()
    y = depthwise_reference(x, weight, stride, (padding, padding), dilation)
    gradient = torch.randn_like(y).to(dtype)
    y.backward(gradient.double())

    maps, gradients = channels_last(x.detach().to(dtype)), channels_last(gradient)
    out, there = torch.empty_like(channels_last(y.detach()), dtype=dtype), torch.empty_like(maps)
    before = [dilation * (k - 1) - padding for k in kernel]
    depthwise_gpu.correlate(maps, taps(weight), kernel, stride, dilation, (padding, padding), 1, out)
    depthwise_gpu.correlate(gradients, taps(weight), kernel, 1, dilation, before, stride, there, flip=True)
    sums = depthwise_gpu.weight_gradient(maps, gradients, kernel, stride, dilation, (padding, padding))
    rounding = 1e-5 if dtype == torch.float32 else 2**-7  # of what is written; the interpreter cuts bits off
    for ours, expected in ((out, y), (there, x.grad), (sums.t().reshape(weight.shape), weight.grad)):
        assert torch.allclose(ours.double(), expected.detach(), rtol=rounding, atol=1e-5)


def taps(weight: Tensor) -> Tensor:
    return weight.detach().flatten(1).t().float().contiguous()
