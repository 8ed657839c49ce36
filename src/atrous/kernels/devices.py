"""What can be run where."""

from __future__ import annotations

import functools
import importlib.util

import torch


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether kernels in Triton can run there; torch brings it along where it supports GPUs."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
