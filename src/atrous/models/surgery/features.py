"""Cuts a network down to its feature maps: what :func:`feature_network` returns computes them and nothing else."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from atrous.grid import Grid
from atrous.models.surgery.convolutionalize import SurgeryError
from atrous.models.surgery.graph import POOLS, ThreadTracer, dropout, functions_to_layers, graph_of
from atrous.models.surgery.trace import Lost, Tracker, skeleton, tracking

SIZES = (129, 128)
"""Sides of the images that a network is tried with; 2×2 pools beside padded convolutions only fit at even ones."""


@dataclass(frozen=True)
class Features:
    """A network that returns its feature maps as a list, from fine to coarse.

    Args:
        net: ``(B, in_channels, H, W)`` → a map ``(B, C, h, w)`` for each stride.
        channels: channels of each map.
        strides: stride of each map.
    """

    net: fx.GraphModule
    channels: tuple[int, ...]
    strides: tuple[int, ...]


def feature_network(net: nn.Module, in_channels: int) -> Features:
    """Copy a convolutional network without what follows its last feature map.

    At each stride the feature is the deepest map that everything behind it depends on: in a ResNet the
    sum that ends a stage, in a VGG the map before a pool. A network that returns several maps returns just these.

    Args:
        net: a classifier or a feature extractor that takes ``(B, in_channels, H, W)``. It is left as it is; pools and
            dropout that its forward calls as functions are layers in the copy.
        in_channels: channels of its input.

    Raises:
        SurgeryError: a forward that can't be read, or no feature maps; the message names the layer.
    """
    graph = _read(net)
    seen = max((_observe(graph, in_channels, size) for size in SIZES), key=lambda seen: len(seen.maps))
    if seen.problem or not seen.maps:
        raise SurgeryError(
            f"the feature maps of {type(net).__name__} can't be followed: {seen.problem or 'it has none'}. Write an "
            "atrous.models.backbones.Backbone that returns its maps and states their grids"
        )
    taps = _own_maps(graph, seen) or _deepest_maps(graph, seen)
    _check_training(net, graph, taps)
    channels, grids = zip(*((seen.channels[tap], seen.maps[tap]) for tap in taps), strict=True)
    _keep_only(graph, taps)
    return Features(graph.train(net.training), channels, tuple(int(grid.stride) for grid in grids))


class _Tracer(ThreadTracer):
    """Goes into modules that are made of modules. What has weights of its own, and what can't be read, stays whole."""

    trace_asserts = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        parts = next(m.children(), None) is not None
        own = next(m.parameters(recurse=False), next(m.buffers(recurse=False), None)) is not None
        return own or not parts or super().is_leaf_module(m, module_qualified_name)

    def trace_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().trace_module(m, forward, args, kwargs)
        except Exception:  # conditions on data, loops over a batch: whatever torch.fx can't read
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def _read(net: nn.Module, *, training: bool = False) -> fx.GraphModule:
    """The graph of a copy of a network, in which functions are layers that surgery can reach."""
    try:
        graph = graph_of(copy.deepcopy(net).train(training), _Tracer())
    except Exception as error:  # a network's own code, or torch.fx, may raise anything
        reason = str(error).strip().partition("\n")[0]
        raise SurgeryError(
            f"{type(net).__name__}.forward can't be read ({reason}): move what depends on the data, such as checks of "
            "the image's size, into a module of its own, or write an atrous.models.backbones.Backbone that returns the "
            "feature maps"
        ) from error
    functions_to_layers(graph, {F.dropout: dropout, **POOLS})
    return graph


@dataclass
class _Seen:
    """The maps of a network by the operation that makes them, and why there are no more if that is not its end."""

    maps: dict[fx.Node, Grid]
    channels: dict[fx.Node, int]
    problem: str = ""


class _Observer(fx.Interpreter):
    """Runs a skeleton of a graph and notes which maps it makes, until they end in a fully connected layer or a pool."""

    def __init__(self, bare: fx.GraphModule, tracker: Tracker, graph: fx.GraphModule) -> None:
        super().__init__(bare)
        self.tracker, self.root = tracker, type(graph).__name__
        self.nodes = {node.name: node for node in graph.graph.nodes}
        self.seen, self.ended = _Seen({}, {}), False

    def run_node(self, n: fx.Node) -> Any:
        name, kind = self._owner(n)
        self.tracker.enter(name, kind)()
        try:
            result = super().run_node(n)
        except Exception as error:
            # A fully connected layer takes one size of image, which says nothing about the maps before it.
            if not (self.ended or n.target in _FLATTENING or isinstance(self._layer(n), (nn.Linear, nn.Flatten))):
                where = f"layer '{name}' ({kind})" if name else f"{kind}.forward"
                self.seen.problem = f"{where}: {str(error).strip().partition(chr(10))[0]}"
            raise
        self.tracker.leave()
        if n.op != "output" and isinstance(result, Tensor) and result.dim() == 4 and not self.ended:
            self._note(n, result)
        return result

    def _owner(self, n: fx.Node) -> tuple[str, str]:
        """The name and class of the module whose forward does an operation."""
        stack = list((n.meta.get("nn_module_stack") or {}).values())
        return (stack[-1][0], stack[-1][1].__name__) if stack else ("", self.root)

    def _layer(self, n: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(n.target)) if n.op == "call_module" else None

    def _note(self, n: fx.Node, result: Tensor) -> None:
        grid, axes = self.tracker.get(result)
        if isinstance(grid, Lost):
            self.ended = n.target in _FIXED_FUNCTIONS or isinstance(self._layer(n), _FIXED)
            if not self.ended:
                self.seen.problem = self.seen.problem or grid.reason
        elif grid and axes == (2, 3):
            node = self.nodes[n.name]
            self.seen.maps[node], self.seen.channels[node] = grid, result.shape[1]


_FLATTENING = (torch.flatten, "flatten", "view", "reshape", F.linear, torch.addmm, torch.matmul)
_FIXED = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_FIXED_FUNCTIONS = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)


def _observe(graph: fx.GraphModule, in_channels: int, size: int) -> _Seen:
    bare = skeleton(graph)
    assert isinstance(bare, fx.GraphModule)
    image = torch.empty(1, in_channels, size, size, device="meta")
    with tracking(bare, image) as tracker:
        observer = _Observer(bare, tracker, graph)
        with suppress(Exception):  # kept as the problem
            observer.run(image, enable_io_processing=False)
    return observer.seen


def _check_training(net: nn.Module, graph: fx.GraphModule, taps: list[fx.Node]) -> None:
    """The graph is that of eval mode: refuse it where training computes the features by other operations."""
    layers = {name for name, _ in net.named_modules()}
    training = _formulas(_read(net, training=True), layers).values()
    formulas = _formulas(graph, layers)
    if any(formulas[tap] not in training for tap in taps):
        raise SurgeryError(
            f"{type(net).__name__}.forward computes its features differently in training: put what depends on "
            "self.training into a module of its own (nn.Dropout instead of a condition)"
        )


def _formulas(graph: fx.GraphModule, layers: set[str]) -> dict[fx.Node, int]:
    """A number for each operation, which is the same in another graph of the same network."""
    formulas: dict[fx.Node, int] = {}
    for node in graph.graph.nodes:
        own = node.op != "call_module" or node.target in layers
        what = node.target if own else repr(graph.get_submodule(str(node.target)))
        parts = [fx.node.map_arg(side, formulas.__getitem__) for side in (node.args, node.kwargs)]
        formulas[node] = hash(repr((node.op, what, parts)))
    return formulas


def _own_maps(graph: fx.GraphModule, seen: _Seen) -> list[fx.Node]:
    """The maps that a network returns, if it returns several and nothing else."""
    (end,) = graph.graph.find_nodes(op="output")
    maps = end.all_input_nodes
    if len(maps) < 2 or any(node not in seen.maps for node in maps):
        return []
    return sorted(maps, key=lambda node: seen.maps[node].stride)


def _deepest_maps(graph: fx.GraphModule, seen: _Seen) -> list[fx.Node]:
    """For each stride the last map that all later ones come from. An average pool at the very end is a global pool of
    images of one size.
    """
    layers, maps = dict(graph.named_modules()), list(seen.maps)
    while len(maps) > 1 and isinstance(layers.get(str(maps[-1].target)), (nn.AvgPool2d, nn.Dropout)):
        maps.pop()
    deepest = {seen.maps[n].stride: n for n in _passages(graph, maps[-1]) if n in seen.maps}
    return [node for stride, node in deepest.items() if stride > 1] or [maps[-1]]


def _passages(graph: fx.GraphModule, last: fx.Node) -> list[fx.Node]:
    """The operations that everything up to ``last`` passes through: no earlier result is needed behind them."""
    needed = {last}
    for node in reversed(graph.graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    order = [node for node in graph.graph.nodes if node in needed and node.op != "get_attr"]
    place = {node: number for number, node in enumerate(order)}
    passages, horizon = [], 0
    for number, node in enumerate(order):
        if horizon <= number:
            passages.append(node)
        horizon = max([horizon, *(place[user] for user in node.users if user in place)])
    return passages


def _keep_only(graph: fx.GraphModule, maps: list[fx.Node]) -> None:
    """Return these maps, and drop what they don't need."""
    (end,) = graph.graph.find_nodes(op="output")
    graph.graph.erase_node(end)
    graph.graph.output(maps)
    graph.graph.eliminate_dead_code(_acts)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _acts(node: fx.Node) -> bool:
    """Whether an operation does something beside its result: those in place end in an underscore."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    inplace = name.endswith("_") and not name.endswith("__") and node.op != "call_module"
    return node.op in ("placeholder", "output") or inplace
