"""What this machine can do at most: the rate of a large matrix product, and the bandwidth of its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SIDE = {"cpu": 2048, "cuda": 8192}
_BYTES = 2**27  # more than any cache


@dataclass(frozen=True)
class Machine:
    """Rates of a device, measured.

    Args:
        multiply_adds: per second, of a large float32 matrix product.
        bytes: per second, read and written, of a large copy.
    """

    multiply_adds: float
    bytes: float


def measure_machine(device: torch.device) -> Machine:
    """Measure a device with all its threads, the best of several trials each."""
    side = _SIDE.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    source = torch.ones(_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Machine(
        multiply_adds=side**3 / best(lambda: torch.mm(a, b), device),
        bytes=2 * _BYTES / best(lambda: target.copy_(source), device),
    )


def best(work: Callable[[], object], device: torch.device, trials: int = 5) -> float:
    """The fewest seconds of some calls, after one that does not count."""
    return min(times(work, device, trials))


def times(work: Callable[[], object], device: torch.device, trials: int) -> list[float]:
    """Seconds of each of some calls, after one that does not count."""
    taken = []
    for _ in range(trials + 1):
        _wait(device)
        begin = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - begin)
    return taken[1:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
