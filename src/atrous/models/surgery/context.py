"""How far a network sees: the reach of its receptive field, read off one symbolic forward without arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atrous.models.surgery.trace import WINDOWS, form_of, skeleton, tensors_in

_SHAPE_OF_THE_FIRST = frozenset("to type_as expand_as view_as reshape_as new_zeros new_tensor".split())
"""Functions that take a form, and no values, from their other tensors."""


@dataclass(frozen=True)
class Context:
    """What a network sees around a position.

    Args:
        pixels: to each side; a bound, which a network without any look at the whole image does not exceed.
        whole: whether it also looks at the whole image: by global pooling (ASPP's image pooling, squeeze and
            excitation) or by attention.
    """

    pixels: int
    whole: bool


def context_of(net: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], in_channels: int) -> Context:
    """Read the context of a network's output off its layers.

    Args:
        net: any network; it is not touched.
        run: gives the output of a copy of it for an image ``(1, in_channels, H, W)`` on the meta device.
        in_channels: channels of its images.

    Example:
        >>> import atrous
        >>> from torch import nn
        >>> from atrous.models.surgery.context import context_of
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 8, 3, padding=4, dilation=4))
        >>> context_of(net, lambda bare, image: bare(image), 3)
        Context(pixels=9, whole=False)
    """
    image = torch.empty(1, in_channels, 257, 257, device="meta")
    watcher = _Watcher()
    watcher.put(image, 0.0, 1.0)
    with torch.no_grad(), watcher:
        output = run(skeleton(net), image)
    seen = watcher.get(output)
    return Context(ceil(seen[0]) if seen else 0, watcher.whole or seen is None)


class _Watcher(TorchFunctionMode):
    """Notes of each tensor how far it sees, and the pixels from one of its positions to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = False
        self._seen: dict[int, tuple[Tensor, float, float]] = {}  # the tensor is kept so that its identity stays its own

    def put(self, tensor: Tensor, reach: float, stride: float) -> None:
        self._seen[id(tensor)] = tensor, reach, stride

    def get(self, tensor: Tensor) -> tuple[float, float] | None:
        known = self._seen.get(id(tensor))
        return known[1:] if known else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        result = form_of(func, args, kwargs)
        first = name in WINDOWS or name in _SHAPE_OF_THE_FIRST
        inputs = [args[0]] if first else list(tensors_in((args, tuple(kwargs.values()))))
        if places := [place for place in map(self.get, inputs) if place]:
            reach, stride = max(place[0] for place in places), min(place[1] for place in places)
            for output in tensors_in((result,)):
                self._follow(name, args, kwargs, inputs, output, reach, stride)
        return result

    def _follow(
        self, name: str, args: Any, kwargs: Any, inputs: list[Tensor], output: Tensor, reach: float, stride: float
    ) -> None:
        if name in WINDOWS:
            kernel, step, _, dilation = max(WINDOWS[name](args, kwargs))
            if name == "conv_transpose2d":
                self.put(output, reach + (kernel - 1) / 2 * stride / step, stride / step)
            else:
                self.put(output, reach + (kernel - 1) / 2 * dilation * stride, stride * step)
        elif "attention" in name or ("matmul" in name and all(map(self.get, inputs))):
            self.whole = True
            self.put(output, reach, stride)
        elif "matmul" in name or "interpolate" in name or "grid_sample" in name:
            self.put(output, reach + stride, stride)  # linear interpolation
        elif _leaves_the_map(name, inputs[0], output):
            self.whole = True  # and what it gives has no place
        else:
            self.put(output, reach, stride)


def _leaves_the_map(name: str, before: Tensor, after: Tensor) -> bool:
    """Whether a function takes the positions of a map together."""
    if before.shape[-2:] == after.shape[-2:]:
        return False
    becomes_one = before.dim() == after.dim() == 4 and tuple(after.shape[2:]) == (1, 1)
    return becomes_one or "pool" in name or name in ("mean", "sum", "amax")
