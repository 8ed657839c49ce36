"""What a device can run, and in which precision it computes."""

from __future__ import annotations

import functools
import importlib.util
import warnings

import torch
from torch import Tensor

_OLDEST = (7, 0)
"""The compute capability that Triton asks of an NVIDIA card."""


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether kernels in Triton can run there.

    torch brings Triton along where it supports GPUs, but it wants a card that is not too old, and a C compiler when it
    is first used on a machine; it is tried once.
    """
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST:
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # whatever keeps it from working, plain torch works
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"Triton does not work here ({reason}): plain PyTorch computes instead, slower", stacklevel=2)
        return False
    return True


def computing_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which torch convolves ``x``: autocast's on its device if autocast is enabled, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
