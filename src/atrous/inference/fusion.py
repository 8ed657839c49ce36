"""From a recording of a network to a program of fused operations."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.inference.program import Call, Convolution, Enlarged, Join, Operation, Program, values_in
from atrous.inference.recording import Recording, Step, Value, join

Folded = dict[tuple[int, ...], tuple[Tensor, Tensor]]
"""Weights and biases with batch norm folded in, by the identities of the tensors that they were made of."""

_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__)
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def fuse(recording: Recording, folded: Folded) -> Program:
    """Make the program of a recording.

    Args:
        recording: of a network in eval mode.
        folded: is filled; the programs of one network share it.
    """
    return Program(_Fusion(recording, folded).operations(), recording.output)


class _Fusion:
    def __init__(self, recording: Recording, folded: Folded) -> None:
        self._folded = folded
        self._same: dict[int, int] = {}  # results that are just another value
        for step in recording.steps:
            if _is_dropout(step):
                self._same[step.result] = self._origin(step.args[0].number)
        self._steps = {step.result: step for step in recording.steps if step.result not in self._same}
        self._users: dict[int, list[Step]] = defaultdict(list)
        for step in self._steps.values():
            for number in self._reads(step):
                self._users[number].append(step)
        self._outputs = {self._origin(v.number) for v in recording.output.values() if isinstance(v, Value)}
        recording.output = {name: self._value(v) if isinstance(v, Value) else v for name, v in recording.output.items()}
        self._taken: set[int] = set()  # steps that a convolution before them does

    def operations(self) -> list[Operation]:
        """The operations in the order in which they run: each at the place of the last step that it takes in."""
        found: dict[int, Operation] = {}
        for step in self._steps.values():
            if step.result not in self._taken:
                operation = self._convolution(step) or self._join(step) or self._call(step)
                found[operation.result] = operation
        wanted = set(self._outputs)
        for number in sorted(found, reverse=True):  # without paddings and enlargements that became part of others
            if number in wanted:
                wanted.update(found[number].reads())
            else:
                del found[number]
        return [found[number] for number in sorted(found)]

    def _origin(self, number: int) -> int:
        return self._same.get(number, number)

    def _value(self, value: Value) -> Value:
        return Value(self._origin(value.number))

    def _reads(self, step: Step) -> set[int]:
        return {self._origin(value.number) for value in values_in((step.args, step.kwargs))}

    def _only_user(self, number: int) -> Step | None:
        """The step that alone reads a value, unless another operation does it already."""
        users = self._users[number]
        alone = len(users) == 1 and number not in self._outputs and users[0].result not in self._taken
        return users[0] if alone else None

    def _call(self, step: Step) -> Call:
        args, kwargs = _renamed(step.args, self._value), _renamed(step.kwargs, self._value)
        return Call(step.function, args, kwargs, step.result)

    def _convolution(self, step: Step) -> Convolution | None:
        if step.function is not F.conv2d:
            return None
        given = _named(step, _CONVOLUTION)
        source, weight, bias = given["input"], given["weight"], given.get("bias")
        padding = given.get("padding", 0)
        if not isinstance(source, Value) or not isinstance(weight, Tensor) or isinstance(bias, Value):
            return None
        if isinstance(padding, str) or weight.dtype != torch.float32:
            return None
        stride, padding, dilation = _pair(given.get("stride", 1)), _pair(padding), _pair(given.get("dilation", 1))
        weight = weight.contiguous(memory_format=torch.channels_last)
        conv = Convolution(
            self._value(source), weight, bias, stride, padding, dilation, given.get("groups", 1), step.result
        )
        self._take_padding(conv)
        self._take_batch_norm(conv, given["weight"])
        self._take_addition(conv, step)
        self._take_activation(conv)
        return conv

    def _take_padding(self, conv: Convolution) -> None:
        """Zero padding of all sides alike becomes the convolution's own."""
        before = self._steps.get(conv.source.number)
        if before is None or before.function is not F.pad:
            return
        given = _named(before, ("input", "pad", "mode", "value"))
        left, right, top, bottom = (*given["pad"], 0, 0)[:4]
        zeros = given.get("mode", "constant") == "constant" and not given.get("value")
        if zeros and len(given["pad"]) in (2, 4) and left == right >= 0 and top == bottom >= 0:
            conv.source = self._value(given["input"])
            conv.padding = [conv.padding[0] + top, conv.padding[1] + left]

    def _take_batch_norm(self, conv: Convolution, weight: Tensor) -> None:
        step = self._only_user(conv.result)
        if step is None or step.function is not F.batch_norm:
            return
        given = _named(step, _BATCH_NORM)
        if given.get("training") or given["running_mean"] is None:
            return
        key = (id(weight), id(given["running_mean"]), id(given.get("weight")), id(given.get("bias")))
        if key not in self._folded:
            self._folded[key] = _fold(conv.weight, conv.bias, given)
        conv.weight, conv.bias = self._folded[key]
        self._take(conv, step)

    def _take_addition(self, conv: Convolution, convolution: Step) -> None:
        step = self._only_user(conv.result)
        if step is None or step.function not in _ADDITIONS or len(step.args) != 2 or step.kwargs:
            return
        terms = [self._value(term) for term in step.args if isinstance(term, Value)]
        others = [term for term in terms if term.number != conv.result]
        if len(terms) != 2 or len(others) != 1 or others[0].number not in self._steps:
            return
        if self._steps[others[0].number].shape == step.shape == convolution.shape:
            conv.added = others[0]
            self._take(conv, step)

    def _take_activation(self, conv: Convolution) -> None:
        step = self._only_user(conv.result)
        if step is not None and (activation := _activation(step)):
            conv.activation = activation
            self._take(conv, step)

    def _take(self, conv: Convolution, step: Step) -> None:
        self._taken.add(step.result)
        conv.result = step.result

    def _join(self, step: Step) -> Join | None:
        if step.function is not join or len(step.shape) != 4 or _named(step, ("maps", "dim")).get("dim") != 1:
            return None
        maps = _named(step, ("maps", "dim"))["maps"]
        shapes = [self._steps[self._origin(v.number)] for v in maps if isinstance(v, Value) and v.number]
        if len(shapes) != len(maps):
            return None
        return Join([self._enlarged(self._value(v)) for v in maps], step.shape, step.result)

    def _enlarged(self, value: Value) -> Value | Enlarged:
        """A value, or the map that it is an enlargement of: what :func:`atrous.grid.resample` does, step by step."""
        from atrous.ops.maps import interpolation

        taps, number = [], value.number
        for name in ("permute", "view", "matmul", "view", "matmul", "reshape", "permute"):
            step = self._steps.get(number)
            if step is None or _name(step) != name or self._only_user(number) is None:
                return value
            source = step.args[1] if name == "matmul" else step.args[0]
            if not isinstance(source, Value) or (name == "matmul" and not isinstance(step.args[0], Tensor)):
                return value
            if name == "matmul":
                taps.append(interpolation(step.args[0]))
            number = self._origin(source.number)
        if taps[0] is None or taps[1] is None:
            return value
        return Enlarged(Value(number), taps[1], taps[0])


def _name(step: Step) -> str:
    return str(getattr(step.function, "__name__", "")).strip("_")


def _named(step: Step, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a step by name."""
    return dict(zip(names, step.args, strict=False)) | step.kwargs


def _is_dropout(step: Step) -> bool:
    if step.function not in (F.dropout, F.dropout2d):
        return False
    return _named(step, ("input", "p", "training")).get("training") is False


def _activation(step: Step) -> tuple[str, *tuple[float, ...]] | None:
    """An activation as :class:`Convolution` has it; None for any other step."""
    if step.function in (F.relu, torch.relu, Tensor.relu):
        return ("relu",)
    if step.function is F.relu6:
        return "hardtanh", 0.0, 6.0
    if step.function is F.hardtanh:
        given = _named(step, ("input", "min_val", "max_val"))
        return "hardtanh", float(given.get("min_val", -1)), float(given.get("max_val", 1))
    names = {F.silu: "swish", F.hardswish: "hardswish", torch.sigmoid: "sigmoid", Tensor.sigmoid: "sigmoid"}
    return (names[step.function],) if step.function in names else None


def _fold(weight: Tensor, bias: Tensor | None, norm: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Weights and bias that give what a convolution and its batch norm give; computed in double precision."""
    scale = (norm["running_var"].double() + norm.get("eps", 1e-5)).rsqrt()
    scale = scale if norm.get("weight") is None else scale * norm["weight"].double()
    shift = norm["running_mean"].double() if bias is None else norm["running_mean"].double() - bias.double()
    shift = -shift * scale if norm.get("bias") is None else norm["bias"].double() - shift * scale
    scaled = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
    return scaled.contiguous(memory_format=torch.channels_last), shift.to(weight.dtype)


def _pair(value: Any) -> list[int]:
    return [int(value[0]), int(value[-1])] if isinstance(value, tuple | list) else [int(value)] * 2


def _renamed(values: Any, rename: Any) -> Any:
    if isinstance(values, Value):
        return rename(values)
    if isinstance(values, dict):
        return {key: _renamed(value, rename) for key, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(_renamed(value, rename) for value in values)
    return values
