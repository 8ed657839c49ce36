"""A classifier that slides over images of any size: fully connected layers become convolutions.

FCN (Long et al., CVPR 2015, arXiv 1411.4038, §3.1): a fully connected layer is a convolution whose kernel covers its
whole input, so the class scores at every position of a large image cost a single forward pass.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from torch import Tensor, fx, nn

from atrous.errors import InputError
from atrous.models.surgery.graph import ThreadTracer, dropout, functions_to_layers, graph_of
from atrous.models.surgery.trace import structural_copy


class SurgeryError(InputError):
    """A network that can't be made convolutional, or not be given the output stride asked for; the message names the
    layer and the reason.
    """


def convolutionalize(net: nn.Module, size: int | None = None, in_channels: int | None = None) -> fx.GraphModule:
    """Make a classifier fully convolutional: class scores at every position of an image of any size.

    Each fully connected layer becomes a convolution with the same weights (FCN, arXiv 1411.4038, §3.1; flattened maps
    are read in the order C, H, W). Pools that bring a map to a fixed size, and the flattening, are discarded. At the
    classifier's own size the 1×1 result is its logits where there was no global pool; where there was a global average,
    the mean of the result is, if nothing but linear layers follow.

    Args:
        net: a classifier ``(B, C, H, W)`` → ``(B, classes)``: torchvision's, timm's, or one made like them. It stays
            as it is; the result shares its weights.
        size: side of the images it classifies; from timm's config, else 224, when left out.
        in_channels: channels of its input; those of the first convolution when left out.

    Returns:
        A network ``(B, C, H, W)`` → ``(B, classes, h, w)`` in the mode of ``net``, its tensors named as before.

    Raises:
        SurgeryError: nothing to convert, or a layer on the way to the logits that has no convolutional form.

    Example:
        >>> import atrous, torch, torchvision
        >>> classifier = torchvision.models.squeezenet1_1(weights=None, num_classes=10).eval()
        >>> atrous.convolutionalize(classifier)(torch.zeros(1, 3, 288, 320)).shape  # a map of class scores
        torch.Size([1, 10, 17, 19])
    """
    if size is None:
        config: Any = getattr(net, "pretrained_cfg", None) or {}
        size = int(config.get("input_size", (3, 224, 224))[-1])
    in_channels = in_channels or input_channels(net)
    modes = {name: module.training for name, module in net.named_modules()}
    with torch.no_grad():
        result, shapes = _graph(structural_copy(net).eval(), in_channels, size)
        tail = _tail(result, shapes)
        if not any(isinstance(layer, nn.Linear) or _resizes(node, layer) for node, layer in tail):
            raise SurgeryError(f"{type(net).__name__} has neither a fully connected layer nor a global pool to convert")
        _slide(result, tail, shapes)
        _check_growth(result, in_channels, size)
    for name, module in result.named_modules():
        module.training = modes.get(name, net.training)
    return result


class _Tracer(ThreadTracer):
    """Goes into those modules only that hold one of the layers to change; what others do inside is their own."""

    def __init__(self, changing: set[nn.Module]) -> None:
        super().__init__()
        self.changing = changing

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return isinstance(m, (nn.Linear, *_RESIZING)) or self.changing.isdisjoint(m.modules())


class _Observed(nn.Module):
    """A graph that notes the shape of each of its results; ``()`` for what is not a tensor."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def forward(self, x: Tensor) -> Any:
        shapes = self.shapes

        class Note(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                result = super().run_node(n)
                shapes[n] = tuple(result.shape) if isinstance(result, Tensor) else ()
                return result

        return Note(self.graph).run(x)


Shapes = dict[fx.Node, tuple[int, ...]]


def _graph(net: nn.Module, in_channels: int, size: int) -> tuple[fx.GraphModule, Shapes]:
    """The network as a graph whose nodes are whole stages, but for those in which layers are to change."""
    connected: set[nn.Module] = set()
    resizing: list[nn.Module] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, _RESIZING):
            resizing.append(module)
        elif args[0].dim() == 2:  # other linear layers work on each position of a map
            connected.add(module)

    layers = [m for m in net.modules() if isinstance(m, (nn.Linear, *_RESIZING))]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        _run_without_data(net, in_channels, size)
        result = graph_of(net, _Tracer(connected or set(resizing[-1:])))
        functions_to_layers(result, {F.dropout: dropout})
        return result, _shapes(result, in_channels, size)
    except Exception as error:  # a network's own code, or torch.fx, may raise anything
        reason = str(error).partition("\n")[0]
        raise SurgeryError(f"{type(net).__name__} can't be followed at {size} × {size}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _shapes(graph: fx.GraphModule, in_channels: int, size: int) -> Shapes:
    observed = _Observed(graph)
    _run_without_data(observed, in_channels, size)
    return observed.shapes


def _run_without_data(net: nn.Module, in_channels: int, size: int) -> None:
    state = {k: v.detach().to("meta") for k, v in (*net.named_parameters(), *net.named_buffers())}
    torch.func.functional_call(net, state, (torch.empty(1, in_channels, size, size, device="meta"),))


Step = tuple[fx.Node, nn.Module | None]
_ELEMENTWISE = (
    nn.Identity,
    nn.Dropout,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
)
_RESIZING = (nn.Flatten, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, SelectAdaptivePool2d)
_RESIZING_FUNCTIONS = (torch.flatten, torch.mean, F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
_RESIZING_METHODS = ("flatten", "mean", "view", "reshape", "squeeze")


def _resizes(node: fx.Node, layer: nn.Module | None) -> bool:
    return (
        isinstance(layer, _RESIZING)
        or node.target in _RESIZING_FUNCTIONS
        or (node.op == "call_method" and node.target in _RESIZING_METHODS)
    )


def _tail(graph: fx.GraphModule, shapes: Shapes) -> list[Step]:
    """What a classifier does after its last map of places, in order: found by going back from its result."""
    modules = dict(graph.named_modules())
    tail: list[Step] = []
    (end,) = graph.graph.find_nodes(op="output")
    node = end.args[0]
    while isinstance(node, fx.Node) and node.op != "placeholder":
        layer = modules[str(node.target)] if node.op == "call_module" else None
        tensors = [n for n in node.all_input_nodes if shapes[n]]
        source = tensors[0] if len(tensors) == 1 else None
        flat = len(shapes[node]) == 2
        elementwise = isinstance(layer, _ELEMENTWISE) or node.target is F.relu
        if flat and not (source and (isinstance(layer, nn.Linear) or elementwise or _resizes(node, layer))):
            what = type(layer).__name__ if layer else getattr(node.target, "__name__", node.target)
            raise SurgeryError(
                f"layer '{node.target if layer else node.name}' ({what}) works on the whole image at once and has "
                "no form that slides; linear layers, dropout, activations, flattening and adaptive pools have"
            )
        if not (flat or _resizes(node, layer)):
            single = shapes[node][2:] == (1, 1) and source is not None and shapes[source][2:] == (1, 1)
            if not (single and (elementwise or _works_on_each_place(layer))):
                break
        tail.append((node, layer))
        node = source
    return tail[::-1]


def _works_on_each_place(layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1)
    # timm's and torchvision's LayerNorm2d are LayerNorms over channels alone; PyTorch's own would be over the map.
    return isinstance(layer, nn.BatchNorm2d) or (isinstance(layer, nn.LayerNorm) and type(layer) is not nn.LayerNorm)


def _slide(graph: fx.GraphModule, tail: list[Step], shapes: Shapes) -> None:
    """Take pools and flattening away, and put convolutions where layers were fully connected."""
    lying: tuple[int, ...] = shapes[tail[0][0].args[0]][1:]  # type: ignore[index]  # (C, h, w), flattened or not
    for node, layer in tail:
        source, shape = node.args[0], shapes[node][1:]
        if isinstance(layer, nn.Linear):
            graph.set_submodule(str(node.target), _as_convolution(layer, lying))
            lying = (layer.out_features, 1, 1)
        elif _resizes(node, layer):
            if shape not in (lying, (math.prod(lying),), (lying[0],), (lying[0], 1, 1)):
                raise SurgeryError(
                    f"layer '{node.name}' brings {' × '.join(map(str, lying))} values to "
                    f"{' × '.join(map(str, shape))}: that is neither a global pool nor flattening; "
                    "is this the size of the images that the classifier was made for?"
                )
            if shape in ((lying[0],), (lying[0], 1, 1)):
                lying = (lying[0], 1, 1)
            node.replace_all_uses_with(source)  # type: ignore[arg-type]
            graph.graph.erase_node(node)
        elif len(shape) == 3:
            lying = shape
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    graph.delete_all_unused_submodules()


def _as_convolution(linear: nn.Linear, shape: tuple[int, ...]) -> nn.Conv2d:
    """The convolution that holds a fully connected layer's weights, and covers a map ``(C, h, w)``."""
    channels, height, width = shape
    conv = nn.Conv2d(channels, linear.out_features, (height, width), bias=linear.bias is not None, device="meta")
    weight = linear.weight.detach().view(linear.out_features, *shape)
    conv.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    conv.bias = linear.bias
    return conv


def _check_growth(graph: fx.GraphModule, in_channels: int, size: int) -> None:
    try:
        small, large = _shapes(graph, in_channels, size), _shapes(graph, in_channels, 2 * size)
    except RuntimeError as error:
        raise SurgeryError(
            f"{type(graph).__name__} does not take images of {2 * size} × {2 * size}: {error}"
        ) from error
    for node, shape in large.items():
        if len(shape) == 4 and min(shape[2:]) <= min(small[node][2:]):
            raise SurgeryError(
                f"layer '{node.target}' gives a map of {shape[2]} × {shape[3]} for images of {size} and of "
                f"{2 * size} alike, so the network can't slide over larger images"
            )


def input_channels(net: nn.Module) -> int:
    """Channels of a network's first convolution.

    Raises:
        SurgeryError: it has none.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise SurgeryError(f"{type(net).__name__} has no convolution, so there is nothing to work on")
