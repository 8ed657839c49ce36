"""The fast way through a network on a CPU: a program for each size of image, tried against the network itself first."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from atrous.inference.fusion import Folded, fuse
from atrous.inference.program import Program
from atrous.inference.recording import Skeleton, UnrecordableError, record
from atrous.models.base import Output, SegmentationModel

SIZES = 16
"""Sizes of images whose programs are kept; making one takes some hundredths of a second."""
TRIAL = (97, 129)
"""Size of the image that a network and its program are compared on."""
MOST_OFF = 1e-3
"""Largest difference of the two in that, as a share of the largest logit: rounding is a thousandth of it."""


class FastNetwork:
    """A network's programs, by the size of the image.

    Args:
        model: float32, in eval mode, on a CPU.
    """

    def __init__(self, model: SegmentationModel) -> None:
        self._model = model
        self._skeleton: Skeleton | None = None
        self._folded: Folded = {}
        self._programs: OrderedDict[tuple[int, ...], Program | None] = OrderedDict()
        self._works: bool | None = None if _can_fuse() and not _has_hooks(model) else False
        self._lock = Lock()

    def main_output(self, images: Tensor) -> Output | None:
        """What the network predicts with, from preprocessed images; None where only the network itself can tell."""
        if self._works is False or images.dtype != torch.float32 or not images.numel():
            return None
        program = self._program(tuple(images.shape))
        if program is None:
            return None
        return Output(**program(images.contiguous(memory_format=torch.channels_last)))

    def _program(self, shape: tuple[int, ...]) -> Program | None:
        with self._lock:
            if self._works is None:
                self._works = self._try()
            if not self._works:
                return None
            if shape not in self._programs:
                self._programs[shape] = self._make(shape)
                while len(self._programs) > SIZES:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(shape)
            return self._programs[shape]

    def _make(self, shape: tuple[int, ...]) -> Program | None:
        try:
            if self._skeleton is None:
                self._skeleton = Skeleton(self._model)
            return fuse(record(self._skeleton, lambda model, image: model.main_output(image), shape), self._folded)
        except UnrecordableError:
            return None

    def _try(self) -> bool:
        """Whether a program computes what the network does."""
        channels = self._model.backbone.in_channels
        image = torch.randn(1, channels, *TRIAL, generator=torch.Generator().manual_seed(0))
        image = image.contiguous(memory_format=torch.channels_last)
        program = self._make(tuple(image.shape))
        if program is None:
            return False
        keep_freed_memory()
        # Without the compiled depthwise convolution: as an operator of torch's, it loads torch's compiler.
        plain = getattr(self._model, "_main_output", self._model.main_output)
        expected = vars(plain(image))
        try:
            found = program(image)
        except (RuntimeError, TypeError, ValueError):  # a function that minds where its arguments lie in memory
            return False
        return all(_is_close(found[name], value) for name, value in expected.items())


def _is_close(found: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor):
        return bool(found == expected)
    if found.shape != expected.shape or not expected.isfinite().all():
        return False  # the network's own logits are then checked as always
    return bool((found - expected).abs().max() <= MOST_OFF * expected.abs().max())


def _has_hooks(model: nn.Module) -> bool:
    """Whether somebody watches the layers at work, which a program does not have."""
    return any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


@cache
def _can_fuse() -> bool:
    """Whether this torch has the fused convolution of its compiler, and it works on this processor."""
    try:
        x, weight = torch.ones(1, 16, 4, 4), torch.ones(16, 16, 1, 1)
        y = torch.ops.mkldnn._convolution_pointwise(
            x, weight, None, [0, 0], [1, 1], [1, 1], 1, "hardtanh", [0.0, 6.0], ""
        )
        z = torch.ops.mkldnn._convolution_pointwise.binary(
            x, y, weight, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, "relu", [], ""
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((z == 22).all())


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 28


@cache
def keep_freed_memory() -> None:
    """Let this process keep up to 256 MB of the memory that it frees (glibc).

    glibc gives large blocks back to the system at once and asks for them again for the next layer's result, whose pages
    the system then fills with zeros: a quarter of the time of a network of depthwise convolutions. What the user has
    set in the environment stays.
    """
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    set_option = None if chosen else _of_glibc("mallopt")
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _KEPT_BYTES)
        set_option(_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Give freed memory that this process keeps back to the system (glibc), so that what is allocated next counts as
    taken: before peak memory is measured.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it has none of the name."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return function
