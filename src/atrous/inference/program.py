"""A network as a short program of fused operations on a CPU, for images of one size.

A convolution takes in the padding before it and batch norm, an addition and an activation behind it, by the operator
that torch's compiler uses on a CPU; maps side by side are made in place. Everything else runs as it was recorded.
:mod:`atrous.inference.fusion` makes programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.inference.recording import Value

Values = dict[int, Any]
"""What has been computed, by number."""


@dataclass
class Convolution:
    """A convolution with all that is fused into it.

    Args:
        source: the value that it reads.
        weight: ``(out_channels, in_channels / groups, kh, kw)``, with batch norm folded in.
        bias: the same; None where there is neither bias nor batch norm.
        stride, padding, dilation: rows and columns.
        groups: as in torch.
        result: the number of the value that it makes.
        added: a value of the result's shape that is added to it.
        activation: behind the addition, by oneDNN's name; its numbers follow.
    """

    source: Value
    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    result: int
    added: Value | None = None
    activation: tuple[str, *tuple[float, ...]] = ("none",)

    def reads(self) -> Iterator[int]:
        """The values that it reads."""
        yield self.source.number
        if self.added is not None:
            yield self.added.number

    def run(self, values: Values) -> Tensor:
        """The result."""
        x, (name, *numbers) = values[self.source.number], self.activation
        if self._is_wide:
            return self._run_wide(x, values)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        fused = torch.ops.mkldnn._convolution_pointwise
        y: Tensor
        if self.added is None:
            y = fused(x, self.weight, self.bias, *geometry, name, numbers, "")
        else:
            after, other = None if name == "none" else name, values[self.added.number]
            y = fused.binary(x, other, self.weight, self.bias, *geometry, "add", 1.0, after, numbers, "")
        return y

    @property
    def _is_wide(self) -> bool:
        """Whether it is a depthwise convolution with so much padding that oneDNN has no fast code for it."""
        from atrous.ops.depthwise.op import MIN_CHANNELS, NARROW

        one = self.stride == [1, 1] and self.dilation[0] == self.dilation[1]
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        fits = all(p <= r for p, r in zip(self.padding, reach, strict=True))
        depthwise = self.groups == len(self.weight) >= MIN_CHANNELS and self.weight.shape[1] == 1
        return one and fits and depthwise and max(self.padding) > NARROW and self.weight.dtype == torch.float32

    def _run_wide(self, x: Tensor, values: Values) -> Tensor:
        from atrous.ops.depthwise.op import depthwise

        y = depthwise(x, self.weight, self.padding, self.dilation[0])
        if self.bias is not None:
            y += self.bias[:, None, None]
        if self.added is not None:
            y += values[self.added.number]
        return IN_PLACE[self.activation[0]](y, *self.activation[1:])


IN_PLACE: Mapping[str, Callable[..., Tensor]] = {
    "none": lambda y: y,
    "relu": torch.relu_,
    "hardtanh": F.hardtanh_,
    "swish": lambda y: F.silu(y, inplace=True),
    "hardswish": lambda y: F.hardswish(y, inplace=True),
    "sigmoid": torch.sigmoid_,
}
"""The activations that a convolution takes in, by oneDNN's names."""


@dataclass
class Enlarged:
    """A map that is enlarged bilinearly where it is read.

    Args:
        source: the map.
        down, across: as for :func:`atrous.ops.maps.enlarge_into`.
    """

    source: Value
    down: Any
    across: Any


@dataclass
class Join:
    """Maps side by side along their channels, channels-last.

    Args:
        parts: values, some of them enlarged on the way.
        shape: of the result.
        result: the number of the value that it makes.
    """

    parts: list[Value | Enlarged]
    shape: tuple[int, ...]
    result: int

    def reads(self) -> Iterator[int]:
        """The values that it reads."""
        for part in self.parts:
            yield (part.source if isinstance(part, Enlarged) else part).number

    def run(self, values: Values) -> Tensor:
        """The result."""
        from atrous.ops.maps import copy_into, enlarge_into

        y = torch.empty(self.shape, memory_format=torch.channels_last)
        offset = 0
        for part, number in zip(self.parts, self.reads(), strict=True):
            x = values[number]
            if isinstance(part, Enlarged):
                enlarge_into(x.contiguous(memory_format=torch.channels_last), part.down, part.across, y, offset)
            else:
                copy_into(x, y, offset)
            offset += x.shape[1]
        return y


@dataclass
class Call:
    """Any other torch function, as it was recorded."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: int

    def reads(self) -> Iterator[int]:
        """The values that it reads."""
        yield from (value.number for value in values_in((self.args, self.kwargs)))

    def run(self, values: Values) -> Any:
        """The result."""
        return self.function(*_filled(self.args, values), **_filled(self.kwargs, values))


Operation = Convolution | Join | Call


class Program:
    """Operations in the order in which they run. It keeps nothing between calls: threads may share it.

    Args:
        operations: value 0 is the image.
        output: what the network returns, by name, with :class:`Value` in place of tensors.
    """

    def __init__(self, operations: list[Operation], output: Mapping[str, Any]) -> None:
        self.operations, self._output = operations, output
        last = {number: position for position, one in enumerate(operations) for number in one.reads()}
        kept = {value.number for value in output.values() if isinstance(value, Value)}
        self._dead: list[list[int]] = [[] for _ in operations]
        for number, position in last.items():
            if number not in kept:
                self._dead[position].append(number)

    def __call__(self, image: Tensor) -> dict[str, Any]:
        """What the network returns for an image of the recorded size, channels-last."""
        values: Values = {0: image}
        for operation, dead in zip(self.operations, self._dead, strict=True):
            values[operation.result] = operation.run(values)
            for number in dead:
                del values[number]
        return {name: values[v.number] if isinstance(v, Value) else v for name, v in self._output.items()}


def values_in(arguments: Any) -> Iterator[Value]:
    """The values among nested arguments."""
    if isinstance(arguments, Value):
        yield arguments
    elif type(arguments) in (tuple, list, dict):
        for part in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from values_in(part)


def _filled(arguments: Any, values: Values) -> Any:
    """Arguments with tensors in place of their stand-ins."""
    if isinstance(arguments, Value):
        return values[arguments.number]
    if isinstance(arguments, dict):
        return {key: _filled(value, values) for key, value in arguments.items()}
    if type(arguments) in (tuple, list):
        return type(arguments)(_filled(value, values) for value in arguments)
    return arguments
