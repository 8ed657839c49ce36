"""Training in several processes: batch statistics over the images of all of them, and their process group."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SIGNATURE = inspect.signature(F.batch_norm)


class SynchronisedBatchNorm(TorchFunctionMode):
    """While active, every batch norm in train mode takes mean and variance over the batches of all processes.

    It works on any module that calls ``torch.nn.functional.batch_norm`` (including timm's fused ones), on any device,
    and changes no module. Each process is weighted by its number of values.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            call = _SIGNATURE.bind(*args, **(kwargs or {}))
            call.apply_defaults()
            if call.arguments.pop("training"):
                return _batch_norm(**call.arguments)
        return func(*args, **(kwargs or {}))


class _Sum(torch.autograd.Function):
    """The sum over all processes, with a gradient; the name of torch's own depends on its version."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    with torch.autocast(input.device.type, enabled=False):
        x = input.float()
        # From the processes' own variances and the distances of their means: sums of squares would cancel.
        variance, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
        count = torch.full_like(mean[:1], x.numel() // x.shape[1])
        summed = _Sum.apply(torch.cat([mean * count, count]))
        total = summed[-1].detach()
        means = summed[:-1] / total
        variances = _Sum.apply((variance + (mean - means).square()) * count) / total
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(means, momentum)
                running_var.lerp_(variances * (total / (total - 1).clamp(min=1)), momentum)
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = (variances + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shift = -means * scale if bias is None else bias - means * scale
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(input.dtype)


def make_accelerator(out: Path, trackers: list[str]) -> Accelerator:
    """Accelerate's handle on device, processes and trackers; it computes on CUDA, else MPS, else the CPU."""
    # Precision is left to autocast in the trainer: Accelerate keeps its own setting for the life of the process.
    return Accelerator(
        mixed_precision="no",
        cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        log_with=trackers or None,
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "trackers")),
    )


def share_buffers(modules: Iterable[nn.Module]) -> None:
    """Copy the first process's buffers to all others (each has gathered statistics from its own images)."""
    for module in modules:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def is_first_process() -> bool:
    """Whether this is the process that prints and writes; launchers number them in ``RANK``."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group() -> Iterator[None]:
    """On leaving, destroy the process group if there is one; every stage of a recipe uses the same."""
    try:
        yield
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
