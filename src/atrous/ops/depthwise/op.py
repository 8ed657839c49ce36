"""Depthwise convolutions by :mod:`atrous.ops.depthwise.cpu` on a CPU, and by
:mod:`atrous.ops.depthwise.triton_kernels` on a GPU, wherever torch's library has only slow code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from atrous.models.layers import computing_dtype
from atrous.ops.devices import has_triton
from atrous.ops.workers import Workers

CHANNELS = 32
"""Fewest that the compiled code takes."""
_DTYPES = (torch.float32, torch.bfloat16)
_NARROW = 6
"""Padding up to which torch's forward is fast: wider than that, it leaves its vectors for plain loops."""
_MANY = 1 << 21
"""Values from which on a GPU has work for longer than it takes the host to ask for it in Python."""


def has_depthwise(net: nn.Module) -> bool:
    """Whether a network has layers that :func:`compiled_depthwise` may serve: looking at every call takes time, too."""
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels >= CHANNELS for m in net.modules())


def compiled_depthwise(images: Tensor) -> AbstractContextManager[object]:
    """While it is active, what a network does to these images goes through the compiled code where that is faster.

    It changes no module. On other devices, for single small images on a GPU, and while a network is exported or
    compiled, nothing happens.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return nullcontext()
    much = torch.is_grad_enabled() or images.numel() >= _MANY
    serves = images.device.type == "cpu" or (has_triton(images.device) and much)
    return _Depthwise() if serves else nullcontext()


class _Depthwise(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d and (call := _served(*args, **kwargs)) is not None:
            return call
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
    """The convolution, or None where torch does it better, or has to say what is wrong with the call."""
    if input.dim() != 4 or weight.dim() != 4 or isinstance(padding, str):
        return None
    channels, per_group, *kernel = weight.shape
    if per_group != 1 or not groups == channels == input.shape[1] >= CHANNELS or _is_transformed():
        return None
    strides, paddings, dilations = _pair(stride), _pair(padding), _pair(dilation)
    if not strides[0] == strides[1] > 0 or not dilations[0] == dilations[1] > 0:
        return None
    if any(not 0 <= p <= dilations[0] * (k - 1) for p, k in zip(paddings, kernel, strict=True)):
        return None
    if min(_out_size(input, weight, strides[0], paddings, dilations[0])) < 1:
        return None
    if bias is not None and bias.shape != (channels,):
        return None
    dtype = _dtype(input, weight)
    learns = torch.is_grad_enabled() and (weight.requires_grad or input.requires_grad)
    if input.device.type == "cpu":
        slow = dilations[0] > 1 or max(kernel) > 3 or (strides[0] > 1 and dtype == torch.bfloat16)
        slow = (learns and slow) or max(paddings) > _NARROW
    else:
        slow = dilations[0] > 1
    if dtype is None or not slow:
        return None
    y: Tensor = _depthwise(input.to(dtype), weight.to(dtype), strides[0], list(paddings), dilations[0])
    if not input.is_contiguous(memory_format=torch.channels_last):
        y = y.contiguous()
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


def _is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which know torch's own layers only."""
    from torch.autograd import forward_ad

    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """What torch would compute in, if that is something served."""
    dtype = computing_dtype(x)
    casts = (torch.float32, torch.bfloat16, torch.float16) if torch.is_autocast_enabled(x.device.type) else (dtype,)
    return dtype if dtype in _DTYPES and {x.dtype, weight.dtype} <= set(casts) else None


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1])) if isinstance(value, Sequence) else (int(value), int(value))


def _out_size(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int], dilation: int) -> tuple[int, int]:
    rows, columns = (
        (n + 2 * p - dilation * (k - 1) - 1) // stride + 1
        for n, p, k in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    )
    return rows, columns


@torch.library.custom_op("atrous::depthwise", mutates_args=(), device_types=("cpu", "cuda"))
def _depthwise(x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int) -> Tensor:
    if x.device.type == "cpu" and max(padding) <= _NARROW:
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1]).contiguous(
            memory_format=torch.channels_last
        )
    out_size = _out_size(x, weight, stride, padding, dilation)
    return _correlate(x, weight, stride, dilation, (padding[0], padding[1]), 1, out_size)


@torch.library.custom_op("atrous::depthwise_backward", mutates_args=(), device_types=("cpu", "cuda"))
def _depthwise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """The gradients by the input and by the weights, as far as they are wanted; else nothing, ``(0,)``."""
    gradient = _channels_last(gradient)
    inputs, weights = x.new_empty(0), x.new_empty(0)
    if wanted[0]:
        before = [dilation * (k - 1) - p for k, p in zip(weight.shape[2:], padding, strict=True)]
        size = (x.shape[2], x.shape[3])
        inputs = _correlate(gradient, weight, 1, dilation, (before[0], before[1]), stride, size, flip=True)
    if wanted[1]:
        weights = _weight_gradient(gradient, _channels_last(x), weight, stride, padding, dilation)
    return inputs, weights


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int
) -> Tensor:
    kernel = (weight.shape[2], weight.shape[3])
    if x.device.type != "cpu":
        from atrous.ops.depthwise import triton_kernels as depthwise_gpu

        sums = depthwise_gpu.weight_gradient(x, gradient, kernel, stride, dilation, padding)
        return sums.t().reshape(weight.shape).to(weight.dtype)
    from atrous.ops.depthwise import cpu as depthwise  # numba takes a second to import

    result = torch.empty(kernel[0] * kernel[1], x.shape[1])
    array = result.numpy()

    def work(first: int, last: int) -> None:
        depthwise.weight_gradient(
            x.data_ptr(),
            x.dtype == torch.bfloat16,
            _size(x),
            gradient.data_ptr(),
            (gradient.shape[2], gradient.shape[3]),
            kernel,
            stride,
            dilation,
            (padding[0], padding[1]),
            array,
            first,
            last,
        )

    _share(work, -(-x.shape[1] // CHANNELS))
    return result.t().reshape(weight.shape).to(weight.dtype)


def _correlate(
    x: Tensor,
    weight: Tensor,
    stride: int,
    dilation: int,
    before: tuple[int, int],
    step: int,
    out_size: tuple[int, int],
    *,
    flip: bool = False,
) -> Tensor:
    x = _channels_last(x)
    out = torch.empty((*x.shape[:2], *out_size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    taps = weight.detach().flatten(1).t()
    if x.device.type != "cpu":
        from atrous.ops.depthwise import triton_kernels as depthwise_gpu

        depthwise_gpu.correlate(x, taps.contiguous(), weight.shape[2:], stride, dilation, before, step, out, flip=flip)
        return out
    from atrous.ops.depthwise import cpu as depthwise  # numba takes a second to import

    array = (taps.flip(0) if flip else taps).float().contiguous().numpy()

    def work(first: int, last: int) -> None:
        depthwise.correlate(
            x.data_ptr(),
            x.dtype == torch.bfloat16,
            _size(x),
            array,
            (weight.shape[2], weight.shape[3]),
            stride,
            dilation,
            before,
            step,
            out.data_ptr(),
            out_size,
            first,
            last,
        )

    _share(work, x.shape[0] * -(-x.shape[1] // CHANNELS))
    return out


@_depthwise.register_fake
def _(x: Tensor, weight: Tensor, stride: int, padding: list[int], dilation: int) -> Tensor:
    size = _out_size(x, weight, stride, padding, dilation)
    return x.new_empty((*x.shape[:2], *size)).contiguous(memory_format=torch.channels_last)


@_depthwise_backward.register_fake
def _(_: Tensor, x: Tensor, weight: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    inputs, weights = settings[-1]
    there = torch.empty_like(x, memory_format=torch.channels_last) if inputs else x.new_empty(0)
    return there, torch.empty_like(weight) if weights else x.new_empty(0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, weight, *ctx.settings = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:2])
    if torch.is_grad_enabled():  # somebody wants the gradient's own gradient
        stride, padding, dilation = ctx.settings
        geometry = ([stride] * 2, padding, [dilation] * 2, False, [0, 0], x.shape[1])
        both = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, [*wanted, False])[:2]
    else:
        both = _depthwise_backward(gradient, x, weight, *ctx.settings, wanted)
    return (*(g if want else None for g, want in zip(both, wanted, strict=True)), None, None, None)


_depthwise.register_autograd(_backward, setup_context=_setup)


@register_flop_formula(torch.ops.atrous.depthwise)
def _count(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


@register_flop_formula(torch.ops.atrous.depthwise_backward)
def _count_backward(gradient: Any, x: Any, weight: Any, *settings: Any, **_: Any) -> int:
    counted: int = sum(settings[-1]) * conv_flop_count(x, weight, gradient)
    return counted


def _channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _size(x: Tensor) -> tuple[int, int, int, int]:
    return x.shape[0], x.shape[2], x.shape[3], x.shape[1]


_workers = cache(Workers)
os.register_at_fork(after_in_child=_workers.cache_clear)  # threads are not inherited


def _share(work: Callable[[int, int], None], blocks: int) -> None:
    """Compute blocks in as many threads as torch takes, this one included."""
    threads = torch.get_num_threads()
    pieces = min(blocks, 2 * threads if threads > 1 else 1)
    bounds = [blocks * i // pieces for i in range(pieces + 1)] if blocks else []
    _workers(threads)(lambda piece: work(*piece), list(pairwise(bounds)))
