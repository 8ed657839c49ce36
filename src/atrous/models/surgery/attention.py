"""Where the feature maps of an attention network sit.

Attention mixes positions and moves none: what a block returns sits where its input does. So the grid is followed
through convolutions as :func:`atrous.models.surgery.trace.trace` does, kept wherever a result has a position for each
one of an operand (as rows and columns, or as one sequence of tokens), and halved where 2×2 neighbours are merged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atrous.grid import PIXELS, Grid
from atrous.models.surgery.trace import WINDOWS, tensors_in

FURTHER_TOKENS = 8
"""Class and register tokens, which stand beside those of an image's places."""


class Place(NamedTuple):
    """The grid of a tensor's positions, and how many rows and columns of them there are."""

    grid: Grid
    size: tuple[int, int]

    def fits(self, shape: Iterable[int]) -> bool:
        """Whether a tensor of this shape has these positions, in two dimensions or one."""
        sides, (h, w) = list(shape), self.size
        tokens = range(h * w, h * w + FURTHER_TOKENS + 1)
        return (h, w) in itertools.pairwise(sides) or any(side in tokens for side in sides)

    def merged(self) -> Place:
        """That of 2×2 neighbours brought together."""
        h, w = self.size
        return Place(self.grid.window(2, 2), (-(-h // 2), -(-w // 2)))


def place_maps(net: nn.Module, run: Callable[[], list[Tensor]], image: Tensor) -> list[Grid | None]:
    """The grids of feature maps; None where one can't be followed.

    Args:
        net: the network; it gets hooks that stay: pass a skeleton.
        run: computes the feature maps ``(1, C, h, w)`` of the image.
        image: ``(1, C, H, W)`` of different height and width.
    """
    watcher = _Watcher()
    for module in net.modules():
        if module is not net:
            module.register_forward_pre_hook(watcher.enter, with_kwargs=True)
            module.register_forward_hook(watcher.leave)
    watcher.put(image, Place(PIXELS, (image.shape[2], image.shape[3])))
    with torch.no_grad(), watcher:
        maps = run()
    places = [watcher.get(x) for x in maps]
    return [p.grid if p and p.size == tuple(x.shape[2:]) else None for p, x in zip(places, maps, strict=True)]


class _Watcher(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, tuple[Tensor, Place]] = {}  # the tensor is kept so that its identity stays its own
        self._entered: list[list[Place]] = []

    def put(self, tensor: Tensor, place: Place) -> None:
        self._places[id(tensor)] = tensor, place

    def get(self, tensor: Tensor) -> Place | None:
        return self._places.get(id(tensor), (None, None))[1]

    def _of(self, values: Any) -> list[Place]:
        return [place for tensor in tensors_in(values) if (place := self.get(tensor))]

    def enter(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        self._entered.append(self._of((args, tuple(kwargs.values()))))

    def leave(self, _: nn.Module, __: Any, output: Any) -> None:
        """A module whose inside could not be followed keeps the positions of its input, or merges neighbours."""
        before = self._entered.pop()
        for tensor in tensors_in((output,)):
            if self.get(tensor) is None:
                self._keep(tensor, [*before, *(place.merged() for place in before)])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        before = self._of((args, tuple(kwargs.values())))
        for tensor in tensors_in((result,)) if before else ():
            if name in WINDOWS:
                self._slide(name, args, kwargs, tensor)
            elif name != "pad":
                self._keep(tensor, before)
            else:
                self._pad(args, kwargs, tensor)
        return result

    def _keep(self, tensor: Tensor, places: list[Place]) -> None:
        fitting = [place for place in places if place.fits(tensor.shape)]
        if fitting:
            finest = min(place.grid.stride for place in fitting)
            alike = [place for place in fitting if place.grid.stride == finest]
            offset = sum(place.grid.offset for place in alike) / len(alike)
            self.put(tensor, alike[0]._replace(grid=Grid(finest, offset)))

    def _slide(self, name: str, args: Any, kwargs: Any, output: Tensor) -> None:
        place = self.get(args[0])
        sides = WINDOWS[name](args, kwargs)
        if place is None or place.size != tuple(args[0].shape[2:]) or sides[0] != sides[1]:
            return
        kernel, stride, padding, _ = sides[0]
        transposed = name == "conv_transpose2d"
        grid = place.grid.transposed(kernel, stride, padding) if transposed else place.grid.window(*sides[0])
        self.put(output, Place(grid, (output.shape[2], output.shape[3])))

    def _pad(self, args: Any, kwargs: Any, output: Tensor) -> None:
        place = self.get(args[0])
        pads = list(args[1] if len(args) > 1 else kwargs["pad"])
        if place and place.size == tuple(args[0].shape[2:]) and len(pads) == 4 and pads[0] == pads[2]:
            self.put(output, Place(place.grid.cropped(-pads[0]), (output.shape[2], output.shape[3])))
