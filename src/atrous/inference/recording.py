"""Writing down what a network computes from images of one size, by one symbolic forward without arithmetic.

The network's :func:`~atrous.models.surgery.trace.skeleton` runs on the meta device, and each call of a torch function
becomes a step over numbered values. Whatever does not depend on the image, such as folded weights or resampling
tables, is computed while recording. What can't be written down exactly is refused, never guessed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atrous.models.surgery.trace import ELEMENTWISE, STRUCTURE, form_of


class UnrecordableError(Exception):
    """A forward that is more than a fixed sequence of torch functions."""


@dataclass(frozen=True)
class Value:
    """Stands for a tensor that depends on the image, in the arguments of a step."""

    number: int


@dataclass
class Step:
    """A call of a torch function.

    Args:
        function: takes the arguments below with values in place of :class:`Value`.
        args: its arguments; other tensors are constants.
        kwargs: the same, by name.
        result: the number of the tensor that it gives.
        shape: of that tensor.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: int
    shape: tuple[int, ...] = ()


@dataclass
class Recording:
    """A network's steps.

    Args:
        steps: in the order in which they run; value 0 is the image.
        output: the fields of what the forward returned, with :class:`Value` in place of tensors.
    """

    steps: list[Step] = field(default_factory=list)
    output: dict[str, Any] = field(default_factory=dict)


class Skeleton:
    """A network without its weights, which remembers them."""

    def __init__(self, net: nn.Module) -> None:
        memo: dict[int, Any] = {}
        self.real: dict[int, Tensor] = {}  # by the identity of what stands for it on the meta device
        self._kept: list[Tensor] = []
        for tensor in (*net.parameters(), *net.buffers()):
            bare = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            bare = nn.Parameter(bare, requires_grad=False) if isinstance(tensor, nn.Parameter) else bare
            memo[id(tensor)] = bare
            self.real[id(bare)] = tensor.detach()
            self._kept.append(bare)
        with STRUCTURE:
            self.net: Any = copy.deepcopy(net, memo).eval()


def record(skeleton: Skeleton, run: Callable[[Any, Tensor], Any], shape: tuple[int, ...]) -> Recording:
    """Write down what a network computes.

    Args:
        skeleton: of the network.
        run: calls the network (its skeleton) with an image; returns a dataclass with tensors.
        shape: of the image, which is float32.

    Raises:
        UnrecordableError: a forward that depends on pixels, changes tensors that others see, or leaves torch.
    """
    image = torch.empty(shape, device="meta", memory_format=torch.channels_last)
    recorder = _Recorder(skeleton.real, image)
    try:
        with torch.no_grad(), recorder:
            result = run(skeleton.net, image)
        recorder.recording.output = {
            name: recorder.number(value) if isinstance(value, Tensor) else value for name, value in vars(result).items()
        }
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise UnrecordableError(str(error)) from error
    return recorder.recording


_FACTS = set(
    """
    __hash__ __len__ dim element_size get_device is_complex is_contiguous is_floating_point is_inference ndimension
    nelement numel size storage_offset stride
""".split()
)
"""Functions that ask for what is known of a tensor without its values."""
_MAPS = ELEMENTWISE - {"layer_norm"} | set("adaptive_avg_pool2d avg_pool2d conv2d dropout join max_pool2d pad".split())
"""Functions whose results are channels-last where a program runs them; stand-ins have other habits."""
_NEW = {"new_ones": "new_ones", "new_zeros": "new_zeros", "new_full": "new_full", "new_tensor": "new_tensor"}
_LIKE = {torch.ones_like, torch.zeros_like, torch.full_like}
_IN_PLACE = {
    "relu_": torch.relu, "add_": torch.add, "__iadd__": torch.add, "mul_": torch.mul, "__imul__": torch.mul,
    "sub_": torch.sub, "__isub__": torch.sub, "div_": torch.div, "sigmoid_": torch.sigmoid, "clamp_": torch.clamp,
    "hardtanh_": F.hardtanh, "relu6_": F.relu6, "silu_": F.silu,
}  # fmt: skip
"""What computes the same as a function that changes its first argument."""


_FLAGGED = {"relu", "relu6", "silu", "hardswish", "hardsigmoid", "mish"}
"""Functions whose second argument makes them work in place."""


class _Recorder(TorchFunctionMode):
    def __init__(self, real: dict[int, Tensor], image: Tensor) -> None:
        super().__init__()
        self.recording = Recording()
        self._real = dict(real)
        self._numbers: dict[int, int] = {id(image): 0}
        self._kept: list[Any] = [image]  # identities stay their own as long as the tensors live
        self._bare: dict[int, Tensor] = {}

    def number(self, tensor: Tensor) -> Value:
        """The value that a tensor stands for."""
        if id(tensor) not in self._numbers:
            raise UnrecordableError("a result does not depend on the image by recorded steps")
        return Value(self._numbers[id(tensor)])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        tensors = list(_tensors((args, kwargs)))
        moving = [tensor for tensor in tensors if id(tensor) in self._numbers]
        if name in _FACTS:
            return func(*args, **kwargs)
        if name == "__get__" and not isinstance(fact := func(*args, **kwargs), Tensor):
            return fact  # x.shape, and not x.T
        if not moving:
            if name.endswith("_") and not name.endswith("__"):
                raise UnrecordableError(f"'{name}' changes a constant in place")
            return self._constant(func, args, kwargs, tensors)
        if name in _NEW:
            like = torch.empty(0, dtype=args[0].dtype)
            return self._remember(getattr(like, name)(*args[1:], **{k: v for k, v in kwargs.items() if k != "device"}))
        if func in _LIKE:
            like = torch.empty(args[0].shape, dtype=args[0].dtype)
            return self._remember(func(like, *args[1:], **{k: v for k, v in kwargs.items() if k != "device"}))
        if name in ("to", "type_as") and id(args[0]) not in self._numbers:  # a constant to the image's side
            return self._remember(self._twin(args[0]).to(args[1].dtype))
        return self._record(func, name, args, kwargs)

    def _constant(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """A function of nothing but constants is computed."""
        if not tensors:
            if str(kwargs.get("device")) == "meta":
                kwargs = kwargs | {"device": "cpu"}
            result = func(*args, **kwargs)
            return self._remember(result) if isinstance(result, Tensor) else result
        with torch.no_grad():
            result = func(*_swapped(args, self._twin), **_swapped(kwargs, self._twin))
        if isinstance(result, Tensor):
            return self._remember(result)
        if any(True for _ in _tensors((result,))):
            return type(result)(self._remember(part) for part in result)
        return result

    def _twin(self, tensor: Tensor) -> Tensor:
        """The real tensor behind a constant."""
        if tensor.is_meta:
            if id(tensor) not in self._real:
                raise UnrecordableError("a tensor of unknown origin")
            return self._real[id(tensor)]
        return tensor

    def _remember(self, real: Tensor) -> Tensor:
        """What stands for a constant on the meta device."""
        bare = torch.empty(real.shape, dtype=real.dtype, device="meta")
        self._real[id(bare)] = real
        self._kept.append(bare)
        return bare

    def _record(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        in_place = name in _IN_PLACE or kwargs.get("inplace") is True or (name in _FLAGGED and True in args[1:2])
        changed = args[0] if in_place else None
        if (
            kwargs.get("out") is not None
            or name in ("__setitem__", "copy_", "set_")
            or (changed is None and name.endswith("_") and not name.endswith("__"))
        ):
            raise UnrecordableError(f"'{name}' changes a tensor in place")
        if changed is not None and (id(changed) not in self._numbers or changed._base is not None):
            raise UnrecordableError(f"'{name}' changes a view or a constant in place")
        func = join if func in (torch.cat, torch.concat) else func
        function = _IN_PLACE.get(name, func)
        kept = {key: value for key, value in kwargs.items() if key != "inplace"}
        args = args[:1] if in_place and name in _FLAGGED else args
        recorded_args, recorded_kwargs = _swapped(args, self._argument), _swapped(kept, self._argument)
        result = _form_of(function, _swapped(args, self._on_meta), _swapped(kept, self._on_meta))
        if isinstance(result, Tensor):
            if result.ndim == 4 and getattr(function, "__name__", "") in _MAPS:
                result = result.contiguous(memory_format=torch.channels_last)
            self._add(Step(function, recorded_args, recorded_kwargs, 0, tuple(result.shape)), result, changed)
            return result if changed is None else changed
        if isinstance(result, tuple | list) and result and all(isinstance(part, Tensor) for part in result):
            self._add(Step(function, recorded_args, recorded_kwargs, 0), result, None)
            whole = self.recording.steps[-1].result
            for index, part in enumerate(result):
                self._add(Step(_take, (Value(whole), index), {}, 0, tuple(part.shape)), part, None)
            return result
        raise UnrecordableError(f"'{name}' reads values of the image")

    def _add(self, step: Step, result: Any, changed: Tensor | None) -> None:
        step.result = 1 + len(self.recording.steps)
        self.recording.steps.append(step)
        self._kept.append(result)
        self._numbers[id(result if changed is None else changed)] = step.result

    def _argument(self, tensor: Tensor) -> Any:
        if id(tensor) in self._numbers:
            return Value(self._numbers[id(tensor)])
        return self._twin(tensor)

    def _on_meta(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            if id(tensor) not in self._numbers and id(tensor) not in self._real:
                raise UnrecordableError("a tensor of unknown origin")
            return tensor
        if id(tensor) not in self._bare:
            self._bare[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            self._kept.append(tensor)
        return self._bare[id(tensor)]


def join(maps: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``torch.cat``, whose result is channels-last like all maps of the program; torch's follows the first map's form,
    and the result of a global pool has none.
    """
    if maps[0].ndim != 4 or dim != 1:
        return torch.cat(tuple(maps), dim)
    batch, _, height, width = maps[0].shape
    shape = (batch, sum(x.shape[1] for x in maps), height, width)
    y = torch.empty(shape, dtype=maps[0].dtype, device=maps[0].device, memory_format=torch.channels_last)
    return torch.cat(tuple(maps), 1, out=y)


def _form_of(function: Any, args: Any, kwargs: Any) -> Any:
    """What a function gives on the meta device; as :func:`form_of`, also for what is in heads."""
    name = getattr(function, "__name__", "").strip("_")
    shape: tuple[int, ...] = ()
    if name == "adaptive_avg_pool2d" and args[1:] in ((1,), ((1, 1),)) and args[0].ndim == 4:
        shape = (*args[0].shape[:2], 1, 1)
    elif name == "join" and args[1:] == (1,) and args[0][0].ndim == 4:
        first = args[0][0].shape
        shape = (first[0], sum(x.shape[1] for x in args[0]), *first[2:])
    if shape:
        return torch.empty(shape, device="meta", memory_format=torch.channels_last)
    if name == "matmul" and args[0].ndim == 2 and args[1].ndim == 3:
        return torch.empty(len(args[1]), len(args[0]), args[1].shape[2], device="meta")
    return form_of(function, args, kwargs)


def _take(parts: Any, index: int) -> Any:
    return parts[index]


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list | dict):
            yield from _tensors(value)


def _swapped(values: Any, swap: Callable[[Tensor], Any]) -> Any:
    """The same arguments with something in place of each tensor."""
    if isinstance(values, Tensor):
        return swap(values)
    if isinstance(values, dict):
        return {key: _swapped(value, swap) for key, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(_swapped(value, swap) for value in values)
    return values
