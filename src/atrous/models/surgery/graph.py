"""A network as a graph of operations (torch.fx): what its forward does can be read, cut and rewritten."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

_TRACING = threading.Lock()


class ThreadTracer(fx.Tracer):
    """A tracer of what one thread does. While torch.fx traces, it intercepts the calls of all modules in the process:
    those of other threads, which may run another network or this one, pass through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread: int | None = threading.get_ident()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """What a module's attribute is while it is traced."""
        if self._foreign():
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call of a module gives while it is traced."""
        if self._foreign():
            return forward(*args, **kwargs)
        return self.trace_module(m, forward, args, kwargs)

    def trace_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call of a module in the tracer's own thread gives."""
        return super().call_module(m, forward, args, kwargs)

    def release(self) -> None:
        """Let go of the network: the tracer is held by functions that hold themselves, and by other threads that are
        leaving a module.
        """
        kept = {name: value for name, value in vars(self).items() if name == "_autowrap_function_ids"}
        self.thread = None
        for name in vars(self).keys() - kept.keys() - {"thread"}:
            delattr(self, name)

    def _foreign(self) -> bool:
        return threading.get_ident() != self.thread


def graph_of(net: nn.Module, tracer: ThreadTracer) -> fx.GraphModule:
    """The graph that a tracer sees; it shares the layers of ``net``.

    torch.fx leaves two circles of references behind, which would keep all the weights until garbage is collected; here
    they are undone.
    """
    with _TRACING:  # two at a time would not undo each other's interception
        graph = tracer.trace(net)
    result = fx.GraphModule(net, graph, type(net).__name__)
    tracer.release()
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
