"""Surgery on an existing classifier: :func:`convolutionalize` turns fully connected layers into convolutions,
:func:`set_output_stride` is the hole algorithm ("algorithme à trous") for any convolutional backbone, and
:func:`set_multi_grid` gives its last layers rates of their own.

DeepLab (Chen et al., TPAMI 2017, arXiv 1606.00915, §3.1) keeps features dense by removing the last strides and
dilating every later filter. One rule does it for any network: a layer whose native input stride is *s* and whose
actual input stride is *a* gets dilation × (s / a), and a layer that would take the stride beyond *n* loses (part of)
its stride. The weights stay as they are, so it can be done before or after training, up or down: the output at stride
8, read at every fourth position, equals the output at stride 32. Only what depends on the number of positions
(squeeze-and-excitation means, batch statistics) is not bit-identical.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from atrous.models.surgery.convolutionalize import SurgeryError, convolutionalize, input_channels
from atrous.models.surgery.trace import GeometryError, Trace, Window, trace_windows

__all__ = ["OUTPUT_STRIDES", "AtrousPool2d", "SurgeryError", "convolutionalize", "set_multi_grid", "set_output_stride"]

OUTPUT_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class _Native:
    """How a layer was built: the stride of its input and its own settings."""

    input_stride: int
    stride: Any
    padding: Any
    dilation: Any


def whole_stride(value: int) -> int:
    """An output stride as an int, from any kind of integer.

    Raises:
        SurgeryError: not an allowed output stride.
    """
    with suppress(TypeError):
        if (whole := operator.index(value)) in OUTPUT_STRIDES:
            return whole
    raise SurgeryError(f"output_stride is one of {', '.join(map(str, OUTPUT_STRIDES))}, not {value!r}")


def set_output_stride(net: nn.Module, output_stride: int, in_channels: int | None = None) -> nn.Module:
    """Make a convolutional network's output as dense as asked, in place, without touching its weights.

    Args:
        net: any module made of convolutions and pools that takes ``(B, C, H, W)`` and gives one map or a list of maps.
        output_stride: 4, 8, 16 or 32; not above the stride the network was built with.
        in_channels: channels of its input; those of the first convolution when left out.

    Returns:
        The same network.

    Raises:
        SurgeryError: a layer that can't be dilated, or an output stride that can't be reached; nothing has been
            changed then.

    Example:
        >>> import atrous, timm, torch
        >>> net = timm.create_model("resnet18", features_only=True).eval()
        >>> image = torch.zeros(1, 3, 65, 65)
        >>> net(image)[-1].shape[-1], atrous.set_output_stride(net, 8)(image)[-1].shape[-1]
        (3, 9)
    """
    output_stride = whole_stride(output_stride)
    plan = _plan(net, in_channels)
    reach = max((n.input_stride * _largest(n.stride) for n in plan.values()), default=1)
    if output_stride > reach:
        raise SurgeryError(
            f"{type(net).__name__} was built with output stride {reach}; it can be made denser, "
            f"but not coarser ({output_stride})"
        )
    changes = {name: _settings(native, output_stride) for name, native in plan.items()}
    modules = dict(net.named_modules())
    for name, native in plan.items():
        _check(name, modules[name], native, changes[name])
    for name, (stride, padding, dilation) in changes.items():
        layer = modules[name]
        if isinstance(layer, (nn.AvgPool2d, nn.MaxPool2d)) and _needs_atrous_pool(layer, plan[name], changes[name]):
            layer = AtrousPool2d.like(layer)
            net.set_submodule(name, layer)
        layer.stride, layer.padding, layer.dilation = stride, padding, dilation
    net._native_windows = plan  # type: ignore[assignment]
    return net


def set_multi_grid(net: nn.Module, rates: Sequence[int], in_channels: int | None = None) -> nn.Module:
    """Multiply the dilation of a network's last convolutions, in place (DeepLabv3, arXiv 1706.05587, §3.2.1).

    They are those larger than 1×1, one for each rate: in a ResNet-50 or deeper the last three lie in the three units of
    its last block, in Xception in the last block of the exit flow. :func:`set_output_stride` keeps the factors: rates
    (1, 2, 4) are dilations 2, 4 and 8 at stride 16 where the whole block comes after the last stride.

    Args:
        net: as for :func:`set_output_stride`.
        rates: the factors, in the order in which the layers work.
        in_channels: channels of its input; those of the first convolution when left out.

    Returns:
        The same network.

    Raises:
        SurgeryError: fewer such layers than rates, or a rate below 1; nothing has been changed then.
    """
    plan, modules = dict(_plan(net, in_channels)), dict(net.named_modules())
    convs = [n for n in plan if isinstance(conv := modules[n], nn.Conv2d) and max(conv.kernel_size) > 1]
    if len(convs) < len(rates) or any(rate < 1 for rate in rates):
        raise SurgeryError(
            f"multi-grid rates are 1 or more, one for each of the last convolutions larger than 1×1, of which "
            f"{type(net).__name__} has {len(convs)}; not {list(rates)}"
        )
    for name, rate in zip(convs[len(convs) - len(rates) :], rates, strict=True):
        native = plan[name]
        padding, dilation = _spread(native.padding, rate), _spread(native.dilation, rate)
        plan[name] = replace(native, padding=padding, dilation=dilation)
        layer: Any = modules[name]
        layer.padding, layer.dilation = _spread(layer.padding, rate), _spread(layer.dilation, rate)
    net._native_windows = plan  # type: ignore[assignment]
    return net


def _plan(net: nn.Module, in_channels: int | None) -> dict[str, _Native]:
    """The native settings, determined on first use."""
    plan: dict[str, _Native] | None = getattr(net, "_native_windows", None)
    return plan if plan is not None else _native_windows(net, in_channels or input_channels(net))


def _native_windows(net: nn.Module, in_channels: int) -> dict[str, _Native]:
    """Each windowed layer's native settings, found by one traced forward."""
    try:
        try:
            windows = trace_windows(net, in_channels)
        except (RuntimeError, AssertionError):  # 2×2 pools beside padded convolutions only fit together at even sizes
            windows = trace_windows(net, in_channels, size=128)
    except AssertionError as error:  # a network's own, about the size of its input
        raise SurgeryError(
            f"{type(net).__name__} refuses images of other sizes than its own ({error}), as transformers do; only "
            "convolutional networks, which take any size, can be dilated. atrous.create_model takes timm's "
            "transformers as they are"
        ) from error
    except (GeometryError, RuntimeError) as error:
        raise SurgeryError(
            f"the layers of {type(net).__name__} can't be followed, so they can't be dilated: {error}"
        ) from error
    return _native_settings(net, windows)


def remember_trace(net: nn.Module, native: Trace) -> None:
    """Note the native settings of a network from a trace of it as it was built, unless they are known: surgery then
    makes no trace of its own.

    Raises:
        SurgeryError: a layer that is used at two input strides.
    """
    if getattr(net, "_native_windows", None) is None and not native.lost:
        net._native_windows = _native_settings(net, native.windows)  # type: ignore[assignment]


def _native_settings(net: nn.Module, windows: Sequence[Window]) -> dict[str, _Native]:
    """The native settings of the layers whose windows a trace shows."""
    modules = dict(net.named_modules())
    plan: dict[str, _Native] = {}
    for window in windows:
        layer = modules[window.layer]
        native = _Native(
            int(window.grid.stride),
            getattr(layer, "stride", window.stride),
            getattr(layer, "padding", 0),
            getattr(layer, "dilation", 1),
        )
        if plan.setdefault(window.layer, native) != native:
            raise SurgeryError(
                f"layer '{window.layer}' ({type(layer).__name__}) is used at input strides "
                f"{plan[window.layer].input_stride} and {native.input_stride}; one dilation can't serve both"
            )
    return plan


def _settings(native: _Native, output_stride: int) -> tuple[Any, Any, Any]:
    """Stride, padding and dilation of a layer when the network stops at ``output_stride``: the one rule."""
    actual = min(native.input_stride, output_stride)
    hole = native.input_stride // actual
    stride = _each(native.stride, lambda s: max(1, min(s, output_stride // actual)))
    return stride, _spread(native.padding, hole), _spread(native.dilation, hole)


def _check(name: str, layer: nn.Module, native: _Native, change: tuple[Any, Any, Any]) -> None:
    if change == (native.stride, native.padding, native.dilation):
        return
    if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, AtrousPool2d)):
        raise SurgeryError(
            f"layer '{name}' ({type(layer).__name__}) works at input stride {native.input_stride} with settings of "
            "its own that can't be dilated; convolutions, max pools and average pools can"
        )
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        raise SurgeryError(
            f"layer '{name}' ({type(layer).__name__}) pads by '{layer.padding_mode}', which has no dilated form"
        )


def _needs_atrous_pool(layer: nn.AvgPool2d | nn.MaxPool2d, native: _Native, change: tuple[Any, Any, Any]) -> bool:
    stride, padding, dilation = change
    if isinstance(layer, nn.MaxPool2d) and 2 * _largest(padding) > _largest(layer.kernel_size):
        return True  # PyTorch pads a pool by half its kernel at most, dilated or not
    return _largest(stride) < _largest(native.stride) or (_largest(dilation) > 1 and isinstance(layer, nn.AvgPool2d))


class AtrousPool2d(nn.Module):
    """Max or average pooling that can be dilated, and that keeps the size of its map when its stride is removed.

    PyTorch's average pool has no dilation, and an unpadded 2×2 pool without its stride would give one position less
    than the padded convolution beside it: here such a map is extended at the bottom and right, and the extension
    counts for nothing.
    """

    def __init__(self, kernel: int, native_stride: int, *, average: bool, count_padding: bool, ceil_mode: bool) -> None:
        super().__init__()
        self.kernel_size, self.native_stride = kernel, native_stride
        self.average, self.count_padding, self.ceil_mode = average, count_padding, ceil_mode
        self.stride: Any = native_stride
        self.padding: Any = 0
        self.dilation: Any = 1

    @classmethod
    def like(cls, pool: nn.AvgPool2d | nn.MaxPool2d) -> AtrousPool2d:
        """An atrous pool that does what ``pool`` does."""
        average = isinstance(pool, nn.AvgPool2d)
        counted = average and bool(pool.count_include_pad)
        sides = _largest(pool.kernel_size), _largest(pool.stride)
        return cls(*sides, average=average, count_padding=counted, ceil_mode=bool(pool.ceil_mode))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C, h, w)``."""
        stride, padding, dilation = _largest(self.stride), _largest(self.padding), _largest(self.dilation)
        if stride == self.native_stride and dilation == 1:
            if self.average:
                return F.avg_pool2d(x, self.kernel_size, stride, padding, self.ceil_mode, self.count_padding)
            return F.max_pool2d(x, self.kernel_size, stride, padding, 1, self.ceil_mode)
        # Natively, does each input position lie in some window?
        covers = self.ceil_mode or self.kernel_size <= self.native_stride
        missing = max(0, dilation * (self.kernel_size - 1) - 2 * padding)
        behind = missing if covers and stride < self.native_stride else 0
        front, back = padding, padding + behind
        pads = (front, back, front, back)
        if not self.average:
            return F.max_pool2d(F.pad(x, pads, value=float("-inf")), self.kernel_size, stride, 0, dilation)
        counted = x.new_ones(1, 1, *x.shape[-2:])
        if self.count_padding:
            counted = F.pad(counted, (padding,) * 4, value=1.0)
            pads_counted = (0, behind, 0, behind)
        else:
            pads_counted = pads
        total = self._sum(F.pad(x, pads), stride, dilation)
        return total / self._sum(F.pad(counted, pads_counted), stride, dilation)

    def _sum(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        weight = x.new_ones(x.shape[1], 1, self.kernel_size, self.kernel_size)
        return F.conv2d(x, weight, None, stride, 0, dilation, groups=x.shape[1])


def _spread(value: Any, factor: int) -> Any:
    return value if isinstance(value, str) else _each(value, lambda v: v * factor)


def _each(value: Any, change: Any) -> Any:
    return type(value)(change(v) for v in value) if isinstance(value, (tuple, list)) else change(value)


def _largest(value: Any) -> int:
    return int(max(value)) if isinstance(value, (tuple, list)) else int(value)
