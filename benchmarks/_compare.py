"""Timing our code and a peer's in turns within one run, and the table of such comparisons."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from studies.results import RESULTS, Result, Section, command_line, origin_of

Work = Callable[[], Any]
FOLDER = RESULTS / "benchmarks"
FILLED = 0.02
"""Seconds of calls that one timing takes at least."""
HEADER = [
    "work",
    "peer",
    "ours: median (best)",
    "peer's: median (best)",
    "ratio: median (lowest–highest)",
    "target",
    "floor",
]


@dataclass(frozen=True)
class Comparison:
    """Seconds per call of ours and of a peer, taken in turns.

    Args:
        work: what is computed.
        peer: name of the peer.
        ours_seconds: seconds per call, round by round.
        peer_seconds: the same of the peer.
        target: how many times as fast ours should be.
        floor: seconds that moving the bytes, or the multiply-adds alone, would take.
    """

    work: str
    peer: str
    ours_seconds: list[float]
    peer_seconds: list[float]
    target: float | None = None
    floor: float | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours was, round by round."""
        return [p / o for o, p in zip(self.ours_seconds, self.peer_seconds, strict=True)]

    def row(self) -> list[str]:
        """The comparison's line of the table."""
        ratio, best = statistics.median(self.ratios), min(self.ours_seconds)
        return [
            self.work,
            self.peer,
            _times(self.ours_seconds),
            _times(self.peer_seconds),
            f"{ratio:.1f}× ({min(self.ratios):.1f}–{max(self.ratios):.1f})",
            "–" if self.target is None else f"≥ {self.target:g}×: {'reached' if ratio >= self.target else 'MISSED'}",
            "–" if self.floor is None else f"{_milliseconds(self.floor)} (best: {best / self.floor:.1f}× of it)",
        ]

    def facts(self) -> dict[str, Any]:
        """The measurements as JSON values."""
        return asdict(self) | {"ratios": self.ratios, "median_ratio": statistics.median(self.ratios)}


def compare(
    work: str,
    ours: Work,
    peer: Work,
    *,
    peer_name: str,
    target: float | None = None,
    floor: float | None = None,
    rounds: int = 9,
) -> Comparison:
    """Time ours and the peer in turns, after one call of each that does not count."""
    ours()
    peer()
    times = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    result = Comparison(work, peer_name, [t[0] for t in times], [t[1] for t in times], target, floor)
    print("  ".join(result.row()), flush=True)
    return result


def seconds(work: Work) -> float:
    """Seconds per call, over as many calls as fill 20 ms."""
    calls, begin = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        passed = time.perf_counter() - begin
        if passed > FILLED:
            return passed / calls


def copy_bandwidth(size: int, rounds: int = 15) -> float:
    """Bytes per second, both read and written, of copying ``size`` bytes with one thread: the best of some rounds."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / min(seconds(lambda: np.copyto(target, source)) for _ in range(rounds))


def write_comparisons(
    name: str,
    title: str,
    comparisons: Sequence[Comparison],
    *,
    seed: int,
    peers: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write ``results/benchmarks/NAME.md`` and ``NAME.json``.

    Args:
        name: name of the files, and of the module in ``benchmarks``.
        title: heading of the page.
        comparisons: the rows.
        seed: the seed of random inputs.
        peers: distributions whose versions are recorded besides our own dependencies.
        notes: sentences on how to read the table.
    """
    command = command_line(f"benchmarks.{name}")
    rows = [HEADER, *(comparison.row() for comparison in comparisons)]
    facts = [comparison.facts() for comparison in comparisons]
    section = Section(rows=rows, facts=facts, origin=origin_of(command, seed=seed, peers=peers))
    Result(title, command, notes, {"comparisons": section}).write(FOLDER / name)


def _times(times: Sequence[float]) -> str:
    return f"{_milliseconds(statistics.median(times))} ({_milliseconds(min(times))})"


def _milliseconds(time_: float) -> str:
    return f"{1000 * time_:.3g} ms"
