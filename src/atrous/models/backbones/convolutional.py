"""Backbones made of convolutions: their strides and grids are read off a traced forward, and their output stride is
changed by surgery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from timm.layers import AvgPool2dSame, Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn

from atrous.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, NATIVE_STRIDE, Backbone
from atrous.models.surgery.output_stride import remember_trace, set_multi_grid, set_output_stride
from atrous.models.surgery.trace import GeometryError, Trace, skeleton, trace, trace_skeleton


class Fit(NamedTuple):
    """The image sides that a network covers evenly.

    Args:
        remainder: sides have to be a multiple of 32 plus this: 1 for 32k + 1, 0 for 32k, None for any.
        native: a trace of the network, as it was built, at such a side.
    """

    remainder: int | None
    native: Trace


class ConvolutionalBackbone(Backbone):
    """A convolutional network as a backbone, with an output stride that can be changed at any time.

    Args:
        net: takes ``(B, in_channels, H, W)`` and returns a list of feature maps, from fine to coarse, at its native
            strides.
        name, in_channels, channels, strides, mean, std: as for :class:`Backbone`.
        output_stride: 4, 8, 16 or 32.
        fit: which image sides fit, from :func:`find_fit`; any if left out.

    Raises:
        SurgeryError: a layer that can't be dilated.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        *,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        output_stride: int,
        fit: Fit | None = None,
    ) -> None:
        fit = fit or Fit(None, trace(net, in_channels, 4 * NATIVE_STRIDE))
        grids = fit.native.outputs
        super().__init__(
            name, in_channels=in_channels, channels=channels, grids=grids, strides=strides, mean=mean, std=std
        )
        if fit.remainder == 1:
            pad_evenly(net)
        self.net = net
        self.size_remainder = fit.remainder
        remember_trace(net, fit.native)
        self.output_stride = output_stride

    def _set_output_stride(self, value: int) -> None:
        self._dilate(value)
        self._update_grids()

    def _dilate(self, output_stride: int) -> None:
        set_output_stride(self.net, output_stride, self.in_channels)

    def _update_grids(self) -> None:
        self.grids = trace(self.net, self.in_channels, self.fitting_size(4 * NATIVE_STRIDE)).outputs

    def set_multi_grid(self, rates: Sequence[int]) -> None:
        """Multiply the atrous rates of the last convolutions, which keep following the output stride.

        See :func:`atrous.models.surgery.output_stride.set_multi_grid`.
        """
        if rates:
            set_multi_grid(self.net, rates, self.in_channels)
            self._update_grids()

    def fitting_size(self, size: int) -> int:
        """The smallest image side, not below ``size``, that the network covers evenly.

        TF-SAME layers pad evenly at 32k + 1 only; unpadded patches and 2×2 pools need 32k to reach every pixel;
        other networks take any size.
        """
        return _fitting_size(size, self.size_remainder)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, in_channels, H, W)`` → a feature map ``(B, C, h, w)`` for each of ``strides``."""
        features: list[Tensor] = self.net(x)
        return features


def pad_evenly(net: nn.Module) -> None:
    """Let the TF-SAME layers of a network pad by what sides of 32k + 1 need, which is the same on all sides.

    They otherwise compute it from the size of each input and copy their input: slower, and an export would keep the
    padding of its example. Modules keep their names and hooks; even kernels, which can't be padded evenly, stay.
    """
    for layer in net.modules():
        plain = _PLAIN.get(type(layer))
        if plain is None:
            continue
        kernel, dilation = (_pair(getattr(layer, name, 1)) for name in ("kernel_size", "dilation"))
        if all(k % 2 for k in kernel):
            layer.__class__ = plain
            layer.padding = tuple((k - 1) // 2 * d for k, d in zip(kernel, dilation, strict=True))  # type: ignore[assignment]


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    Conv2dSame: nn.Conv2d,
    MaxPool2dSame: nn.MaxPool2d,
    AvgPool2dSame: nn.AvgPool2d,
}


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _fitting_size(size: int, remainder: int | None) -> int:
    if remainder is None:
        return size
    # Not -(-n // 32): ONNX rounds towards zero.
    return (size - remainder + NATIVE_STRIDE - 1) // NATIVE_STRIDE * NATIVE_STRIDE + remainder


def find_fit(net: nn.Module, name: str, in_channels: int) -> Fit:
    """Which image sides a network covers evenly, found by tracing two sizes.

    Args:
        net: as for :class:`ConvolutionalBackbone`.
        name: for the message.
        in_channels: channels of the image.

    Raises:
        GeometryError: a network that can't be traced.
    """
    traces: dict[int, Trace] = {}
    reasons = []
    bare = skeleton(net)
    for size in (4 * NATIVE_STRIDE, 4 * NATIVE_STRIDE + 1):
        try:
            traces[size % NATIVE_STRIDE] = trace_skeleton(bare, in_channels, size)
        except (GeometryError, RuntimeError, AssertionError) as error:
            reasons.append(str(error))
    if not traces:
        raise GeometryError(f"the features of backbone '{name}' can't be followed: {reasons[0]}")
    if len(traces) == 1:
        return Fit(*next(iter(traces.items())))
    if traces[0].outputs != traces[1].outputs:
        return Fit(1, traces[1])
    gaps = (w for w in traces[0].windows if w.stride > 1 and w.padding < (w.kernel - 1) / 2 * w.dilation)
    return Fit(0 if any(gaps) else None, traces[0])
