"""Small layers that several papers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.ops.devices import computing_dtype

_FEW, _NARROW = 3, 8
"""Images up to which, and padding above which, cuDNN is slow."""
_COLUMNS = 1 << 26
"""Numbers of columns that may exist at once: 128 MB in half precision."""


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the device of a tensor."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch norm that can also train on a single value per channel, where a batch has no variance: there it uses its
    running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        try:
            return super().forward(x)
        except ValueError:  # torch's answer to a single value; where processes share their statistics there is none
            if x.numel() != x.shape[1]:
                raise
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class WideConv2d(nn.Conv2d):
    """A convolution of stride 1 with wide padding, such as fc6 of DeepLab on VGG.

    For few images in half precision, cuDNN takes its slowest path (deeplab_largefov on VGG-16 took 82 ms on an
    H200 for one image, 31 for thirty-two): on a GPU it is then computed as a matrix product, some rows at a time.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if not isinstance(padding, str) and max(padding) > _NARROW and self._is_slow(input):
            dtype = computing_dtype(input)
            return conv_by_columns(input.to(dtype), weight.to(dtype), bias, padding, self.dilation)
        there: Tensor = super()._conv_forward(input, weight, bias)
        return there

    def _is_slow(self, x: Tensor) -> bool:
        few = x.is_cuda and x.dim() == 4 and x.shape[0] <= _FEW
        return few and computing_dtype(x).itemsize < 4 and not torch.compiler.is_compiling()


def conv_by_columns(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """A convolution of stride 1 as a product of its weights with a column for each position.

    Args:
        x: ``(B, in_channels, H, W)``.
        weight: ``(out_channels, in_channels, kh, kw)`` of the same dtype.
        bias: ``(out_channels,)``.
        padding: zeros on each side, down and across.
        dilation: down and across.

    Returns:
        ``(B, out_channels, rows, columns)`` in channels-last memory.
    """
    (down, across), kernel = padding, weight.shape[2:]
    x = F.pad(x, (across, across, down, down))
    reach, beside = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    rows, columns = x.shape[2] - reach, x.shape[3] - beside
    matrix = weight.flatten(1).T
    strip = max(1, _COLUMNS // max(1, len(matrix) * columns * x.shape[0]))
    parts = []
    for first in range(0, rows, strip):
        found = F.unfold(x[:, :, first : first + strip + reach], tuple(kernel), tuple(dilation))
        parts.append((found.transpose(1, 2) @ matrix).view(len(x), -1, columns, len(weight)))
    y = torch.cat(parts, 1)
    return (y if bias is None else y + bias.to(y.dtype)).permute(0, 3, 1, 2)


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 1, rate: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; keeps the size of its map."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False),
        PooledBatchNorm(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_conv(in_channels: int, out_channels: int, rate: int = 1) -> nn.Sequential:
    """Atrous separable convolution: depthwise 3×3 with a rate, then pointwise, batch norm and ReLU after both (arXiv
    1802.02611, §3.1).
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False),
        PooledBatchNorm(in_channels),
        nn.ReLU(inplace=True),
        *conv_bn_relu(in_channels, out_channels),
    )


def conv3x3(in_channels: int, out_channels: int, *, rate: int = 1, separable: bool) -> nn.Sequential:
    """A 3×3 convolution with batch norm and ReLU, ordinary or separable."""
    if separable:
        return separable_conv(in_channels, out_channels, rate)
    return conv_bn_relu(in_channels, out_channels, 3, rate)


def rate_at(rate: int, reference_stride: int, output_stride: int) -> int:
    """An atrous rate given at a reference stride, at another output stride: the integer nearest to what keeps its
    field of view in pixels, halves upwards, at least 1. It is exact at every finer stride.
    """
    return max(1, (2 * rate * reference_stride + output_stride) // (2 * output_stride))


def set_rate(module: nn.Module, rate: int) -> None:
    """Dilate the 3×3 convolutions of a part of a network, so that its maps keep their size."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            conv.dilation = conv.padding = (rate, rate)


class Bottleneck(nn.Module):
    """A residual unit of the deeper ResNets (1×1 to a quarter of the channels, 3×3, 1×1) without a stride.

    A new unit is the identity on its non-negative input: its last norm starts at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // 4)
        norm = PooledBatchNorm(channels)
        self.residual = nn.Sequential(
            conv_bn_relu(channels, width),
            conv_bn_relu(width, width, 3),
            nn.Conv2d(width, channels, 1, bias=False),
            norm,
        )
        init_convolutions(self.modules())
        nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, h, w)`` → the same shape."""
        return F.relu(x + self.residual(x))


def init_convolutions(modules: Iterable[nn.Module]) -> None:
    """He initialisation for the convolutions of a new head."""
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def init_classifier(classifier: nn.Conv2d) -> None:
    """Small logits at first: truncated normal, standard deviation 0.01; bias 0."""
    nn.init.trunc_normal_(classifier.weight, std=0.01)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)


class FCNHead(nn.Sequential):
    """The head called "FCN" on dilated ResNets: 3×3 convolution to a quarter of the channels, batch norm, ReLU,
    dropout 0.1, 1×1 convolution. Numbered like torchvision's, so that its weights fit.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        classifier = nn.Conv2d(in_channels // 4, out_channels, 1)
        super().__init__(*conv_bn_relu(in_channels, in_channels // 4, 3), nn.Dropout(0.1), classifier)
        init_convolutions(self)
        init_classifier(classifier)


def bilinear_kernel(size: int) -> Tensor:
    """The kernel ``(size, size)`` of a transposed convolution of stride ``(size + 1) // 2`` that interpolates
    bilinearly.
    """
    factor = (size + 1) // 2
    line = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    return line[:, None] * line
