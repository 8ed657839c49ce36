"""What a device can run, and in which precision it computes."""

from __future__ import annotations

import functools
import importlib.util
import platform
import warnings

import torch
from torch import Tensor

_OLDEST = (7, 0)
"""The lowest compute capability of an NVIDIA GPU that Triton supports."""


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether Triton kernels can run on a device.

    torch installs Triton where it supports GPUs, but Triton also needs a recent enough GPU and, at its first use on a
    machine, a C compiler. It is tried once; a warning says why it does not work.
    """
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST:
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # whatever the cause, plain torch still works
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(
            f"Triton does not work here ({reason}): falling back to plain PyTorch, which is slower", stacklevel=2
        )
        return False
    return True


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that compute in bfloat16; one without them emulates it, many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def computing_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which torch convolves ``x``: autocast's on its device if autocast is enabled, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
