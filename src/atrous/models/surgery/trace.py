"""Tracing: reads the grid of every feature map off a network, by one symbolic forward without arithmetic."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atrous.errors import InputError
from atrous.grid import PIXELS, Grid

Module = TypeVar("Module", bound=nn.Module)


class GeometryError(InputError):
    """A network whose features can't be placed; the message names the layer and the operation."""


@dataclass(frozen=True)
class Window:
    """One sliding window of a traced network: the settings a layer was called with and the grid of its input."""

    layer: str
    grid: Grid
    kernel: int
    stride: int
    padding: float
    dilation: int


@dataclass(frozen=True)
class Lost:
    """Stands in for a grid that could not be followed any further."""

    reason: str


@dataclass(frozen=True)
class Trace:
    """What one symbolic forward shows: a grid for each output, every window that lies on the way, and whether one lies
    over a map that could not be followed.
    """

    outputs: tuple[Grid, ...]
    windows: tuple[Window, ...]
    lost: bool = False


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for a while; every module's own mode is restored afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


STRUCTURE = threading.RLock()
"""Held while the layers of any network get another output stride, or are copied: threads may share a model."""


def structural_copy(net: Module) -> Module:
    """A copy of a network's modules over the same parameters and buffers: its mode and output stride are its own."""
    with STRUCTURE:
        memo: dict[int, Any] = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
        return copy.deepcopy(net, memo)


def skeleton(net: nn.Module) -> nn.Module:
    """A copy of a network without its weights: on the meta device, in eval mode. The network itself is not touched."""
    memo: dict[int, Any] = {}
    for weight in net.parameters():
        bare = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
        memo[id(weight)] = nn.Parameter(bare, requires_grad=False)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype, device="meta")
    with STRUCTURE:
        return copy.deepcopy(net, memo).eval()


def trace(net: nn.Module, in_channels: int = 3, size: int = 129) -> Trace:
    """Follow the grid through a network by running it once on tensors without data (no arithmetic is done).

    Args:
        net: any module that takes ``(1, in_channels, size, size)`` and gives a tensor or a list of tensors ``(1, C,
            h, w)``.
        in_channels: channels of its input.
        size: side of the imaginary image. TF-SAME layers pad by the size of their input: at 32k + 1 they are
            symmetric.

    Raises:
        GeometryError: an output whose position is unknown (global pooling, upsampling inside, strided slicing, ...).
    """
    return trace_skeleton(skeleton(net), in_channels, size)


def trace_skeleton(bare: nn.Module, in_channels: int, size: int) -> Trace:
    """:func:`trace` of a network's :func:`skeleton`, which can be traced several times."""
    result, tracker = _run(bare, in_channels, size)
    maps = [result] if isinstance(result, Tensor) else list(result)
    grids = []
    for number, feature in enumerate(maps):
        grid, _ = tracker.get(feature)
        if not isinstance(grid, Grid):
            reason = grid.reason if isinstance(grid, Lost) else "it does not depend on a place in the image"
            raise GeometryError(f"output {number} of {type(bare).__name__} has no place in the image: {reason}")
        grids.append(grid)
    return Trace(tuple(grids), tuple(tracker.windows), tracker.lost is not None)


def trace_windows(net: nn.Module, in_channels: int = 3, size: int = 129) -> tuple[Window, ...]:
    """The windows of a network, whatever it makes of its last map: a classifier's global pool has no place.

    Raises:
        GeometryError: a window over a map whose position can't be determined.
    """
    _, tracker = _run(skeleton(net), in_channels, size)
    if tracker.lost:
        raise GeometryError(tracker.lost.reason)
    return tuple(tracker.windows)


def _run(bare: nn.Module, in_channels: int, size: int) -> tuple[Any, Tracker]:
    """One forward of a network's skeleton, watched."""
    image = torch.empty(1, in_channels, size, size, device="meta")
    with tracking(bare, image) as tracker:
        result = bare(image)
    return result, tracker


@contextmanager
def tracking(bare: nn.Module, image: Tensor) -> Iterator[Tracker]:
    """Watch what is computed from an image in the layers of a :func:`skeleton`.

    Args:
        bare: the skeleton.
        image: ``(1, C, H, W)`` on the meta device.
    """
    tracker = Tracker(bare)
    hooks = []
    for name, module in bare.named_modules():
        hooks.append(module.register_forward_pre_hook(tracker.enter(name, type(module).__name__)))
        hooks.append(module.register_forward_hook(tracker.leave))
    tracker.put(image, PIXELS, (2, 3))
    try:
        with torch.no_grad(), tracker:
            yield tracker
    finally:
        for hook in hooks:
            hook.remove()


Axes = tuple[int, int]


class Tracker(TorchFunctionMode):
    """Watches each torch function of a forward and writes down where its result sits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.windows: list[Window] = []
        self.lost: Lost | None = None  # the first window over a map that could not be followed
        self._stack = [("", type(net).__name__)]
        # Keyed by identity; the tensor is kept so that its identity stays its own. Without data that costs nothing.
        self._places: dict[int, tuple[Tensor, Grid | Lost, Axes]] = {}

    def enter(self, name: str, kind: str) -> Callable[..., None]:
        """A hook that notes that a layer of this name and class begins."""
        return lambda *_: self._stack.append((name, kind))

    def leave(self, *_: Any) -> None:
        self._stack.pop()

    def put(self, tensor: Tensor, grid: Grid | Lost, axes: Axes) -> None:
        self._places[id(tensor)] = (tensor, grid, axes)

    def get(self, tensor: Tensor) -> tuple[Grid | Lost | None, Axes]:
        _, grid, axes = self._places.get(id(tensor), (tensor, None, (2, 3)))
        return grid, axes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        result = form_of(func, args, kwargs)
        inputs = [t for t in tensors_in((args, tuple(kwargs.values()))) if id(t) in self._places]
        if name in WINDOWS:  # weights have no place
            inputs = [t for t in inputs if t is args[0]]
        if inputs and not name.startswith("new_"):
            for output in tensors_in((result,)):
                self._follow(name, args, kwargs, inputs, output)
        return result

    def _follow(self, name: str, args: Any, kwargs: Any, inputs: list[Tensor], output: Tensor) -> None:
        grid, axes = self.get(inputs[0])
        for other in inputs[1:]:
            grid, axes = self._merge(grid, axes, other)
        if isinstance(grid, Lost) and name in WINDOWS:
            self.lost = self.lost or grid
        if isinstance(grid, Grid) and name in WINDOWS:
            self.put(output, self._window(name, args, kwargs, grid), axes)
        elif isinstance(grid, Grid) and name == "pad":
            left, _, top, _ = (*_argument(args, kwargs, 1, "pad"), 0, 0, 0, 0)[:4]  # what is added behind moves nothing
            alike = left == top and axes == (2, 3)
            self.put(output, grid.cropped(-top) if alike else self._lost("it pads rows and columns differently"), axes)
        elif name in ("permute", "transpose", "movedim") and output.dim() == 4:
            self.put(output, grid or self._lost("no place"), self._moved(name, args, kwargs, axes))
        elif output.dim() != 4 or inputs[0].dim() != 4:
            self.put(output, self._lost(f"'{name}' leaves the form (batch, channels, height, width)"), axes)
        else:
            here = tuple(output.shape[a] for a in axes)
            if any(here == tuple(t.shape[a] for a in self.get(t)[1]) for t in inputs if t.dim() == 4):
                self.put(output, grid or self._lost("no place"), axes)
            elif here != (1, 1):  # a global pool's result has no place of its own, but that of what it is added to
                self.put(output, self._lost(f"'{name}' changes the size in a way that has no grid"), axes)

    def _merge(self, grid: Grid | Lost | None, axes: Axes, other: Tensor) -> tuple[Grid | Lost | None, Axes]:
        """The place of a sum or concatenation. Branches that sit half a step apart (pooled shortcuts) meet in the
        middle.
        """
        more, its_axes = self.get(other)
        if isinstance(grid, Lost) or more is None:
            return grid, axes
        if grid is None or isinstance(more, Lost):
            return more, its_axes
        if grid.stride != more.stride:
            return self._lost(f"it joins maps of stride {grid.stride:g} and {more.stride:g}"), axes
        return Grid(grid.stride, (grid.offset + more.offset) / 2), axes

    def _window(self, name: str, args: Any, kwargs: Any, grid: Grid) -> Grid | Lost:
        sides = WINDOWS[name](args, kwargs)
        places = []
        for kernel, stride, padding, dilation in sides:
            places.append(
                grid.transposed(kernel, stride, padding)
                if name == "conv_transpose2d"
                else grid.window(kernel, stride, padding, dilation)
            )
        if places[0] != places[1]:
            return self._lost("rows and columns are treated differently")
        self.windows.append(Window(self._stack[-1][0], grid, *max(sides)))
        return places[0]

    def _moved(self, name: str, args: Any, kwargs: Any, axes: Axes) -> Axes:
        if name == "permute":
            order = [d % 4 for d in (_argument(args, kwargs, 1, "dims") if len(args) == 2 or kwargs else args[1:])]
        else:
            order = list(range(4))
            a, b = args[1] % 4, args[2] % 4
            order[a], order[b] = order[b], order[a]
        return order.index(axes[0]), order.index(axes[1])

    def _lost(self, why: str) -> Lost:
        name, kind = self._stack[-1]
        return Lost(f"in layer '{name}' ({kind}) {why}" if name else f"in {kind}.forward {why}")


ELEMENTWISE = frozenset(
    "batch_norm gelu group_norm layer_norm hardsigmoid hardswish hardtanh relu relu6 sigmoid silu".split()
)
"""Functions whose result has the form of their first argument."""


def form_of(func: Any, args: Any, kwargs: Any) -> Any:
    """What a function gives on the meta device.

    Without data, torch finds the form of convolutions, norms and activations by way of Python code that takes half of a
    trace's time, and for which it loads its compiler: two seconds. Here they are known.
    """
    name = getattr(func, "__name__", "")
    if name in ELEMENTWISE:
        return args[0] if kwargs.get("inplace") else _bare(args[0].shape, args[0])
    if name in ("add", "__add__") and all(isinstance(t, Tensor) and t.shape == args[0].shape for t in args):
        return _bare(args[0].shape, args[0])
    if name == "conv2d" and args[0].dim() == 4 and not isinstance(_argument(args, kwargs, 4, "padding", 0), str):
        weight, groups = _argument(args, kwargs, 1, "weight"), _argument(args, kwargs, 6, "groups", 1)
        sides = zip(args[0].shape[2:], _conv(args, kwargs), strict=True)
        size = [(n + 2 * int(p) - d * (k - 1) - 1) // s + 1 for n, (k, s, p, d) in sides]
        if args[0].shape[1] == weight.shape[1] * groups and min(size) > 0:
            return _bare((len(args[0]), len(weight), *size), args[0])
    return func(*args, **kwargs)


def _bare(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor without data; ``empty_like`` is Python code, too."""
    ahead = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if ahead else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta", memory_format=form)


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)


def _argument(args: Sequence[Any], kwargs: dict[str, Any], index: int, name: str, default: Any = None) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])
    return value, value


Side = tuple[int, int, float, int]  # kernel, stride, padding, dilation


def _conv(args: Any, kwargs: Any) -> list[Side]:
    weight = _argument(args, kwargs, 1, "weight")
    stride = _pair(_argument(args, kwargs, 3, "stride", 1))
    padding = _argument(args, kwargs, 4, "padding", 0)
    dilation = _pair(_argument(args, kwargs, 5, "dilation", 1))
    kernel = weight.shape[2:]
    if padding == "same":
        padding = [(k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
    padding = _pair(0 if padding == "valid" else padding)
    return list(zip(kernel, stride, padding, dilation, strict=True))


def _transposed_conv(args: Any, kwargs: Any) -> list[Side]:
    kernel = _argument(args, kwargs, 1, "weight").shape[2:]
    stride, padding = (_pair(_argument(args, kwargs, i, n, d)) for i, n, d in ((3, "stride", 1), (4, "padding", 0)))
    return list(zip(kernel, stride, padding, (1, 1), strict=True))


def _pool(dilated: bool) -> Callable[[Any, Any], list[Side]]:
    def sides(args: Any, kwargs: Any) -> list[Side]:
        kernel = _pair(_argument(args, kwargs, 1, "kernel_size"))
        stride = _pair(_argument(args, kwargs, 2, "stride") or kernel)
        padding = _pair(_argument(args, kwargs, 3, "padding", 0))
        dilation = _pair(_argument(args, kwargs, 4, "dilation", 1)) if dilated else (1, 1)
        return list(zip(kernel, stride, padding, dilation, strict=True))

    return sides


WINDOWS: dict[str, Callable[[Any, Any], list[Side]]] = {
    "conv2d": _conv,
    "conv_transpose2d": _transposed_conv,
    "max_pool2d": _pool(dilated=True),
    "avg_pool2d": _pool(dilated=False),
}
"""The functions that slide a window, and how each is called: kernel, stride, padding and dilation of rows, columns."""
