"""Measuring on a GPU: times by its own clock, peak memory, and rows that may fail alone."""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._compare import Work
from benchmarks._images import SEED
from studies.results import Section

CLASSES = 21
WARM_UP = 3
"""Calls that do not count."""
FILLED, FEWEST, MOST = 0.2, 5, 200
"""Seconds that counted calls fill, and their number."""
HEADER = ["work", "median (best)", "images/s", "TFLOP/s", "share of matrix rate", "memory", "remarks"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of the work."""

    matrix: int = 8192
    copied: int = 1 << 30
    side: int = 512
    batches: tuple[int, ...] = (1, 32)
    crop: int = 513
    batch: int = 16
    crf: tuple[int, int] = (333, 500)
    labels: tuple[int, int] = (1024, 2048)


TRIAL = Sizes(256, 1 << 20, 64, (1, 2), 65, 2, (33, 50), (64, 128))
"""Sizes that only show that everything runs."""


@dataclass(frozen=True)
class Measured:
    """The cost of calls of a work.

    Args:
        work: its name.
        seconds: of each call.
        images: images per call; 0 if it has none.
        operations: floating-point operations per call, 2 for a multiply-add; 0 if they are not its subject.
        memory: peak bytes beyond those allocated before.
        remarks: remarks.
    """

    work: str
    seconds: list[float]
    images: int = 1
    operations: float = 0.0
    memory: int = 0
    remarks: str = ""

    @property
    def median(self) -> float:
        """Median seconds per call."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Failed:
    """A work that could not be measured, and why."""

    work: str
    reason: str


Row = Measured | Failed
Rows = Iterator[Row]


def attempt(work: str, measure: Callable[[], Measured]) -> Row:
    """A row, whatever happens."""
    try:
        row: Row = measure()
    except Exception as error:  # a benchmark of twenty rows does not end with one of them
        traceback.print_exc()
        row = Failed(work, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    shown = f"{1000 * row.median:.3f} ms  {row.remarks}" if isinstance(row, Measured) else row.reason
    print(f"{work}: {shown}", flush=True)
    return row


def measured(name: str, work: Work, device: torch.device, *, images: int = 1, operations: float = 0.0) -> Measured:
    """The times and memory of a work."""
    if device.type != "cuda":
        return Measured(name, call_seconds(work, device), images, operations)
    torch.cuda.synchronize()
    allocated = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = call_seconds(work, device)
    return Measured(name, seconds, images, operations, torch.cuda.max_memory_allocated() - allocated)


def call_seconds(work: Work, device: torch.device) -> list[float]:
    """Seconds from the end of a call to the end of the next, of consecutive calls."""
    for _ in range(WARM_UP):
        work()
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    calls = min(MOST, max(FEWEST, round(FILLED / (time.perf_counter() - begin))))
    return _gpu_seconds(work, calls) if device.type == "cuda" else _cpu_seconds(work, calls)


def _gpu_seconds(work: Work, calls: int) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]


def _cpu_seconds(work: Work, calls: int) -> list[float]:
    ends = [time.perf_counter()]
    for _ in range(calls):
        work()
        ends.append(time.perf_counter())
    return [b - a for a, b in itertools.pairwise(ends)]


def synchronise(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations(work: Work) -> float:
    """Floating-point operations of a call, by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def random_images(device: torch.device, batch: int, side: int) -> Tensor:
    """Smooth random images ``(B, 3, side, side)``."""
    coarse = torch.randn(batch, 3, 20, 20, generator=torch.Generator().manual_seed(SEED))
    return F.interpolate(coarse.to(device), (side, side), mode="bicubic")


def installed(package: str) -> bool:
    """Whether a distribution is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def section(heading: str, rows: Sequence[Row], rate: float | None, origin: dict[str, object]) -> Section:
    """A section of the page; ``rate`` is the GPU's matrix rate, in operations per second."""
    table = [HEADER, *map(partial(_line, rate), rows)]
    return Section(heading, rows=table, facts=[_facts(row) for row in rows], origin=origin)


def _line(rate: float | None, row: Row) -> list[str]:
    """A row's line of the table."""
    if isinstance(row, Failed):
        return [row.work, "FAILED", "–", "–", "–", "–", row.reason.replace("|", "/")]
    reached = row.operations / row.median
    return [
        row.work,
        f"{1000 * row.median:.3g} ms ({1000 * min(row.seconds):.3g})",
        f"{row.images / row.median:.4g}" if row.images else "–",
        f"{reached / 1e12:.3g}" if reached else "–",
        f"{100 * reached / rate:.0f} %" if reached and rate else "–",
        f"{row.memory / 1e6:.0f} MB" if row.memory else "–",
        row.remarks,
    ]


def _facts(row: Row) -> dict[str, object]:
    facts = asdict(row)
    if isinstance(row, Measured):
        facts |= {"seconds": {"median": row.median, "best": min(row.seconds), "calls": len(row.seconds)}}
    return facts
