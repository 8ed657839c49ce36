"""What every benchmark shares: ours and a peer in turns within one run, and a generated file saying how and where."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atrous.provenance import provenance

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"

Work = Callable[[], Any]


@dataclass(frozen=True)
class Comparison:
    """Seconds a call of ours and of a peer, taken in turns; ``floor`` is what moving the bytes alone would take."""

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


_HEADER = [
    "work",
    "peer",
    "ours: median (best)",
    "peer's: median (best)",
    "ratio: median (lowest–highest)",
    "target",
    "floor",
]


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
    times = [(_seconds(ours), _seconds(peer)) for _ in range(rounds)]
    result = Comparison(work, peer_name, [t[0] for t in times], [t[1] for t in times], target, floor)
    print("  ".join(result.row()), flush=True)
    return result


def race(module: str, contenders: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[list[float]]]:
    """Let processes of a benchmark measure in turns.

    Args:
        module: the benchmark, which calls :func:`answer` when it is given arguments.
        contenders: the arguments of each, by its name.
        rounds: how often each measures.

    Returns:
        By the contenders' names, the numbers that each answered, round by round.
    """
    told: dict[str, list[list[float]]] = {name: [] for name in contenders}
    runners = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, arguments in contenders.items()
    }
    try:
        for runner in runners.values():
            assert runner.stdout
            if runner.stdout.readline() != "ready\n":
                raise SystemExit("a contender failed; what it said stands above")
        for _ in range(rounds):
            for name, runner in runners.items():
                assert runner.stdin
                assert runner.stdout
                runner.stdin.write("\n")
                runner.stdin.flush()
                told[name].append([float(number) for number in runner.stdout.readline().split()])
                print(f"{name}: {told[name][-1][0]:.2f} s", flush=True)
    finally:
        for runner in runners.values():
            runner.kill()
            runner.wait()
    return told


def answer(measure: Callable[[], Sequence[float]]) -> None:
    """A contender's side of :func:`race`: what it measures, once for each line on stdin."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*measure(), flush=True)


def copy_bandwidth(size: int, rounds: int = 15) -> float:
    """Bytes a second, both read and written, of copying ``size`` bytes with one thread: the best of some rounds."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / min(_seconds(lambda: np.copyto(target, source)) for _ in range(rounds))


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Args:
        name: what its rows are called in the JSON file.
        heading: above it; none for the only table of a page.
        rows: words, the names of the columns first.
        facts: of each row but the first, for the JSON file.
    """

    name: str
    heading: str
    rows: Sequence[Sequence[str]]
    facts: Sequence[Mapping[str, Any]]

    def page(self) -> str:
        """In markdown."""
        names, *rows = self.rows
        lines = [" | ".join(row) for row in (names, ["---"] * len(names), *rows)]
        return (f"## {self.heading}\n\n" if self.heading else "") + "\n".join(f"| {line} |" for line in lines)


def write(
    name: str, title: str, comparisons: Sequence[Comparison], *, seed: int, peers: Sequence[str], notes: Sequence[str]
) -> None:
    """Write ``results/benchmarks/NAME.md`` and ``NAME.json``.

    Args:
        name: of the files, and of the module in ``benchmarks`` that made them.
        title: heading of the page.
        comparisons: the rows.
        seed: of the random inputs.
        peers: the distributions whose versions are told besides our own dependencies.
        notes: sentences on how to read the table.
    """
    facts = [asdict(c) | {"ratios": c.ratios, "median_ratio": statistics.median(c.ratios)} for c in comparisons]
    table = Table("comparisons", "", [_HEADER, *(c.row() for c in comparisons)], facts)
    origin = origin_of(name, seed=seed, peers=peers)
    record = {"title": title, **origin, "notes": list(notes), table.name: facts}
    told = "\n".join(f"- {fact}" for fact in (*notes, *_words(origin)))
    _write(name, title, [table.page(), told], record, RESULTS)


def write_sections(
    name: str, title: str, tables: Sequence[Table], *, origin: Mapping[str, Any], notes: Sequence[str], out: Path
) -> None:
    """Write a page of several tables, each with its origin, and the JSON file beside it; tables of an earlier run that
    are not measured again stay as they are.

    Args:
        name: as in :func:`write`, like title and notes.
        title: see there.
        tables: those that were measured.
        origin: of them, from :func:`origin_of`.
        notes: see there.
        out: folder of both files.
    """
    file = out / f"{name}.json"
    kept = json.loads(file.read_text(encoding="utf-8"))["sections"] if file.exists() else {}
    sections = kept | {table.name: {**asdict(table), "origin": dict(origin)} for table in tables}
    parts = []
    for section in sections.values():
        there = section["origin"]
        table = Table(**{key: value for key, value in section.items() if key != "origin"})
        parts += [table.page(), "\n".join(f"- {fact}" for fact in _words(there))]
    told = "\n".join(f"- {fact}" for fact in notes)
    _write(name, title, [told, *parts], {"title": title, "notes": list(notes), "sections": sections}, out)


def origin_of(name: str, *, seed: int, peers: Sequence[str], commit: str | None = None) -> dict[str, Any]:
    """Where a benchmark's figures come from.

    Args:
        name: of its module.
        seed: of the random inputs.
        peers: the distributions whose versions are told besides our own dependencies.
        commit: of a copy of the tree that does not know its own.
    """
    origin = provenance()
    origin["command"] = " ".join([f"python -m benchmarks.{name}", *sys.argv[1:]])
    origin["commit"] = commit or origin["commit"]
    origin["versions"] |= {peer: importlib.metadata.version(peer) for peer in peers}
    return origin | {
        "seed": seed,
        "torch_threads": torch.get_num_threads(),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


def _words(origin: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{package} {version}" for package, version in origin["versions"].items())
    return [
        f"Commit {origin['commit']} (+: a changed tree), seed {origin['seed']}, Python {origin['python']}, {versions}.",
        f"{origin['hardware']}; torch on {origin['torch_threads']} threads; load averages at the end {origin['load']}.",
    ]


def _write(name: str, title: str, parts: Sequence[str], record: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    page = "\n\n".join([f"# {title}", f"Generated by `python -m benchmarks.{name}`; do not edit.", *parts])
    (out / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(page + "\n", encoding="utf-8")


def _seconds(work: Work) -> float:
    """Seconds a call, over as many calls as fill 20 ms."""
    calls, begin = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        passed = time.perf_counter() - begin
        if passed > 0.02:
            return passed / calls


def _times(seconds: list[float]) -> str:
    return f"{_milliseconds(statistics.median(seconds))} ({_milliseconds(min(seconds))})"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
