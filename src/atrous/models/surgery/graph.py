"""A network as a graph of operations (torch.fx): what its forward does can be read, cut and rewritten."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import fx, nn


def graph_of(net: nn.Module, tracer: fx.Tracer) -> fx.GraphModule:
    """The graph that a tracer sees; it shares the layers of ``net``.

    torch.fx leaves two circles of references behind, which would keep all the weights until garbage is collected; here
    they are undone.
    """
    graph = tracer.trace(net)
    result = fx.GraphModule(net, graph, type(net).__name__)
    vars(tracer).clear()  # held by functions that hold themselves
    graph.owning_module = weakref.proxy(result)  # type: ignore[assignment]
    return result


def functions_to_layers(graph: fx.GraphModule, functions: dict[Any, Callable[..., nn.Module]]) -> None:
    """Replace calls of functions by layers, in place.

    Args:
        graph: the network.
        functions: for each function what makes a layer of its arguments beyond the first.
    """
    for function, layer in functions.items():
        for node in graph.graph.find_nodes(op="call_function", target=function):
            graph.add_submodule(node.name, layer(*node.args[1:], **node.kwargs))
            with graph.graph.inserting_before(node):
                called = graph.graph.call_module(node.name, node.args[:1])
            called.meta = node.meta
            node.replace_all_uses_with(called)
            graph.graph.erase_node(node)


def dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:  # noqa: ARG001
    """The layer of a call of ``F.dropout``, which would stay in the mode that it was traced in."""
    return nn.Dropout(p, inplace)


def max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    """The layer of a call of ``F.max_pool2d``."""
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


POOLS: dict[Any, Callable[..., nn.Module]] = {F.max_pool2d: max_pool, F.avg_pool2d: nn.AvgPool2d}
"""The pools that a forward may call as functions, where no output stride would reach them."""
