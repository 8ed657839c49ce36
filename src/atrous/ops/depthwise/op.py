"""Depthwise convolution, compiled for the cases in which torch's own is slow.

:func:`compiled_depthwise` is the door: inside it, ``F.conv2d`` takes the kernels of :mod:`atrous.ops.depthwise.cpu` or
:mod:`atrous.ops.depthwise.triton_kernels` where they are faster. :func:`depthwise_reference` is what they compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import register_flop_formula

from atrous.ops.devices import computing_dtype, has_triton

MIN_CHANNELS = 32
"""Fewest channels that the compiled code takes."""
_DTYPES = (torch.float32, torch.bfloat16)
NARROW = 6
"""Padding up to which torch's forward is fast on a CPU: beyond it, torch leaves its vectors for plain loops."""
_MANY = 1 << 21
"""Number of input values from which a GPU computes for longer than Python takes to launch the next kernel."""


def depthwise_reference(x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int) -> Tensor:
    """Convolve each channel of ``(B, C, H, W)`` with its own kernel of ``(C, 1, kh, kw)``, in plain torch."""
    return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])


def depthwise(x: Tensor, weight: Tensor, padding: Sequence[int], dilation: int) -> Tensor:
    """What :func:`depthwise_reference` computes at stride 1, in compiled code, without gradients.

    Args:
        x: float32 ``(B, C, H, W)`` on a CPU, at least :data:`MIN_CHANNELS` channels.
        weight: float32 ``(C, 1, kh, kw)``.
        padding: rows and columns, at most ``dilation · (k − 1)``.
        dilation: of both.

    Returns:
        ``(B, C, rows, columns)``, channels-last.
    """
    return _correlate(x, weight, 1, dilation, padding, 1, _out_size(x, weight, 1, padding, dilation))


def has_depthwise(net: nn.Module) -> bool:
    """Whether a network has layers that :func:`compiled_depthwise` may serve: others need not pay for intercepting
    every call.
    """
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels >= MIN_CHANNELS for m in net.modules())


def compiled_depthwise(images: Tensor) -> AbstractContextManager[object]:
    """A context in which depthwise convolutions run in compiled code where that is faster than torch's.

    It intercepts calls of ``F.conv2d`` and changes no module, so it works on every network (timm's included), which
    keeps its weights, its hooks and its exported form. Derivatives of any order, forward-mode differentiation,
    ``torch.func`` and checkpointing work as with torch's convolution. It does nothing while a network is compiled,
    traced or exported, for small images on a GPU without gradients, and on a device that is neither a CPU nor a GPU
    with Triton.

    Args:
        images: the network's input, ``(B, C, H, W)``; its device and size decide.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return nullcontext()
    much = torch.is_grad_enabled() or images.numel() >= _MANY
    serves = images.device.type == "cpu" or (has_triton(images.device) and much)
    return _Interception() if serves else nullcontext()


class _Interception(TorchFunctionMode):
    """Sends the depthwise convolutions among all calls of torch's functions to the compiled code."""

    # A function mode is torch's public way to reach every F.conv2d of a network that somebody else wrote. Replacing
    # modules would change what is saved, hooked and exported; overriding aten::convolution would change the process.

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d and (y := _served(*args, **kwargs)) is not None:
            return y
        return func(*args, **kwargs)


def _served(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """``F.conv2d`` in compiled code; None where torch is as fast, or has to raise an error."""
    if input.dim() != 4 or weight.dim() != 4 or isinstance(padding, str):
        return None
    channels, per_group = weight.shape[:2]
    if per_group != 1 or not groups == channels == input.shape[1] >= MIN_CHANNELS:
        return None
    if bias is not None and bias.shape != (channels,):
        return None
    strides, paddings, dilations = _pair(stride), _pair(padding), _pair(dilation)
    dtype = _dtype(input, weight)
    if dtype is None or not _is_supported(input, weight, strides, paddings, dilations):
        return None
    if not _is_slow_in_torch(input, weight, strides[0], paddings, dilations[0], dtype):
        return None
    y: Tensor = _Depthwise.apply(input.to(dtype), weight.to(dtype), strides[0], list(paddings), dilations[0])
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1])) if isinstance(value, Sequence) else (int(value), int(value))


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The dtype torch would compute in, if the compiled code has it."""
    dtype = computing_dtype(x)
    casts = (torch.float32, torch.bfloat16, torch.float16) if torch.is_autocast_enabled(x.device.type) else (dtype,)
    return dtype if dtype in _DTYPES and {x.dtype, weight.dtype} <= set(casts) else None


def _is_supported(
    x: Tensor, weight: Tensor, strides: tuple[int, int], paddings: tuple[int, int], dilations: tuple[int, int]
) -> bool:
    """Whether the compiled code has these settings: one stride, one dilation, no more padding than the kernel needs."""
    if not strides[0] == strides[1] > 0 or not dilations[0] == dilations[1] > 0:
        return False
    if any(not 0 <= p <= dilations[0] * (k - 1) for p, k in zip(paddings, weight.shape[2:], strict=True)):
        return False
    return min(_out_size(x, weight, strides[0], paddings, dilations[0])) >= 1


def _is_slow_in_torch(
    x: Tensor, weight: Tensor, stride: int, paddings: tuple[int, int], dilation: int, dtype: torch.dtype
) -> bool:
    if x.device.type != "cpu":
        return dilation > 1
    learns = torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)
    slow_gradient = dilation > 1 or max(weight.shape[2:]) > 3 or (stride > 1 and dtype == torch.bfloat16)
    return (learns and slow_gradient) or max(paddings) > NARROW


def _out_size(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], dilation: int) -> tuple[int, int]:
    rows, columns = (
        (n + 2 * p - dilation * (k - 1) - 1) // stride + 1
        for n, p, k in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    )
    return rows, columns


class _Depthwise(torch.autograd.Function):
    """The compiled convolution with its derivatives; it keeps the memory format of ``x``."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int) -> Tensor:
        y: Tensor = _convolve(x, weight, stride, padding, dilation)
        return y if x.is_contiguous(memory_format=torch.channels_last) else y.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        x, weight, *ctx.settings = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding, dilation) = ctx.saved_tensors, ctx.settings
        wanted = list(ctx.needs_input_grad[:2])
        # The gradient's own gradient needs operations that torch can differentiate.
        gradients = _plain_gradients if torch.is_grad_enabled() else _gradients
        both = gradients(gradient, x, weight, stride, padding, dilation, wanted)
        return (*(g if want else None for g, want in zip(both, wanted, strict=True)), None, None, None)

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, weight_tangent: Tensor | None, *_: Any) -> Tensor:
        x, weight = ctx.saved_tensors
        pairs = ((x_tangent, weight), (x, weight_tangent))
        parts = [depthwise_reference(a, b, *ctx.settings) for a, b in pairs if a is not None and b is not None]
        return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, *settings: Any) -> tuple[Tensor, int]:
        y = torch.vmap(lambda x, w: depthwise_reference(x, w, *settings), in_dims[:2])(x, weight)
        return y, 0


# The kernels are operators of torch's, so that FlopCounterMode counts them and the profiler names them.


@torch.library.custom_op("atrous::depthwise", mutates_args=(), device_types=("cpu", "cuda"))
def _convolve(x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int) -> Tensor:
    """The convolution, in channels-last memory."""
    if x.device.type == "cpu" and max(padding) <= NARROW:
        y = depthwise_reference(x, weight, stride, (padding[0], padding[1]), dilation)
        return y.contiguous(memory_format=torch.channels_last)
    return _correlate(x, weight, stride, dilation, padding, 1, _out_size(x, weight, stride, padding, dilation))


@torch.library.custom_op("atrous::depthwise_backward", mutates_args=(), device_types=("cpu", "cuda"))
def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """The gradients with respect to the input and the weights; ``(0,)`` for one that is not wanted."""
    gradient, kernel = _channels_last(gradient), weight.shape[2:]
    for_x, for_weight = x.new_empty(0), weight.new_empty(0)
    if wanted[0]:
        before = [dilation * (k - 1) - p for k, p in zip(kernel, padding, strict=True)]
        for_x = _correlate(gradient, weight, 1, dilation, before, stride, (x.shape[2], x.shape[3]), flip=True)
    if wanted[1]:
        taps = _kernels(x).weight_gradient(_channels_last(x), gradient, kernel, stride, dilation, padding)
        for_weight = torch.empty_like(weight).copy_(taps.t().reshape(weight.shape))  # autograd wants its strides too
    return for_x, for_weight


def _plain_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """What :func:`_gradients` computes, in plain torch."""
    geometry = ([stride] * 2, padding, [dilation] * 2, False, [0, 0], x.shape[1])
    both = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, [*wanted, False])[:2]
    for_x, for_weight = (x.new_empty(0) if g is None else g for g in both)
    return for_x, for_weight


def _correlate(
    x: Tensor,
    weight: Tensor,
    stride: int,
    dilation: int,
    before: Sequence[int],
    step: int,
    out_size: tuple[int, int],
    *,
    flip: bool = False,
) -> Tensor:
    x = _channels_last(x)
    out = torch.empty((*x.shape[:2], *out_size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    taps = weight.detach().flatten(1).t().contiguous()
    _kernels(x).correlate(x, taps, weight.shape[2:], stride, dilation, before, step, out, flip=flip)
    return out


def _channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _kernels(x: Tensor) -> ModuleType:
    """The module of kernels for a tensor's device; it is loaded when it is first needed (numba takes a second)."""
    if x.device.type == "cpu":
        from atrous.ops.depthwise import cpu

        return cpu
    from atrous.ops.depthwise import triton_kernels

    return triton_kernels


@_convolve.register_fake
def _(x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int) -> Tensor:
    size = _out_size(x, weight, stride, padding, dilation)
    return x.new_empty((*x.shape[:2], *size)).contiguous(memory_format=torch.channels_last)


@_gradients.register_fake
def _(_: Tensor, x: Tensor, weight: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    for_x, for_weight = settings[-1]
    like_x = torch.empty_like(x, memory_format=torch.channels_last) if for_x else x.new_empty(0)
    return like_x, torch.empty_like(weight) if for_weight else weight.new_empty(0)


@_gradients.register_vmap
def _(_: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    both = torch.vmap(lambda *tensors: _plain_gradients(*tensors, *args[3:]), in_dims[:3])(*args[:3])
    return both, (0, 0)


@register_flop_formula(torch.ops.atrous.depthwise)
def _count(_: Any, weight: Sequence[int], *__: Any, out_shape: Sequence[int] = (), **___: Any) -> int:
    return 2 * math.prod(out_shape) * math.prod(weight[2:])


@register_flop_formula(torch.ops.atrous.depthwise_backward)
def _count_backward(gradient: Sequence[int], _: Any, weight: Sequence[int], *settings: Any, **__: Any) -> int:
    wanted: list[bool] = settings[-1]
    return 2 * math.prod(gradient) * math.prod(weight[2:]) * sum(wanted)
