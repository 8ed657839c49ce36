"""What a network will need for an image (memory, and pixels around a position), and what the machine has: known before
it is used.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atrous.models.base import SegmentationModel
from atrous.models.surgery.context import Context, context_of
from atrous.models.surgery.trace import skeleton

_SIDE = 257
"""Side of the image that is tried; the bytes of a pixel hardly depend on it."""
_RESERVE = 1.5
"""What libraries take beside the tensors (reordered weights, buffers of convolutions), as a factor."""
_SHARE = 0.6
"""Of the free memory that an image may take; the rest is for other programs, reading and writing."""
_KNOWN: weakref.WeakKeyDictionary[SegmentationModel, dict[int, float]] = weakref.WeakKeyDictionary()
_CONTEXTS: weakref.WeakKeyDictionary[SegmentationModel, dict[int, Context]] = weakref.WeakKeyDictionary()


def fits(model: SegmentationModel, size: tuple[int, int], device: torch.device) -> bool:
    """Whether a network can see an image whole within the memory that is free now."""
    return bytes_per_pixel(model) * size[0] * size[1] <= _SHARE * free_memory(device)


def bytes_per_pixel(model: SegmentationModel) -> float:
    """The most memory that a network's feature maps take at once, in bytes a pixel of the image.

    Found by running its shapes alone (on the meta device), at the model's output stride.
    """
    known = _KNOWN.setdefault(model, {})
    if model.output_stride not in known:
        shapes = cast(SegmentationModel, skeleton(model))
        image = torch.empty(1, model.backbone.in_channels, _SIDE, _SIDE, device="meta")
        with torch.no_grad(), _Peak() as peak:
            shapes.main_output(image)
        known[model.output_stride] = _RESERVE * peak.most / _SIDE**2
    return known[model.output_stride]


def model_context(model: SegmentationModel) -> Context:
    """What a network sees around a position at its output stride, up to the labels between its positions."""
    known = _CONTEXTS.setdefault(model, {})
    if model.output_stride not in known:

        def run(bare: nn.Module, image: torch.Tensor) -> torch.Tensor:
            return cast(SegmentationModel, bare).main_output(image).logits

        seen = context_of(model, run, model.backbone.in_channels)
        pixels = ceil((seen.pixels + model.output_stride) / min(1, *model.scales))
        known[model.output_stride] = Context(pixels, seen.whole)
    return known[model.output_stride]


def free_memory(device: torch.device) -> float:
    """Bytes that can still be taken: of a GPU its own, else of the machine, or of the container if it has less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = float("inf")
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = float(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max": no limit
            free = min(free, float(Path(limit).read_text()) - float(Path(used).read_text()))
    return free


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of the tensors that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.seen:
                    self.seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def _freed(self, storage: int, size: int) -> None:
        self.seen.discard(storage)
        self.now -= size
