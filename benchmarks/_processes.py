"""Contenders that are processes of their own, so that the memory of one is not the other's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PROCESS = Path("/proc/self")


def race(module: str, contenders: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[list[float]]]:
    """Let processes of a benchmark measure in turns.

    Args:
        module: the benchmark, which calls :func:`answer` when it is given arguments.
        contenders: the arguments of each, by its name.
        rounds: how often each measures.

    Returns:
        The numbers of each contender, round by round.
    """
    measured: dict[str, list[list[float]]] = {name: [] for name in contenders}
    runners = {name: _start(module, arguments) for name, arguments in contenders.items()}
    try:
        for name, runner in runners.items():
            if _read(runner) != "ready\n":
                raise SystemExit(f"{name} failed; its error is printed above")
        for _ in range(rounds):
            for name, runner in runners.items():
                measured[name].append(_ask(runner))
                print(f"{name}: {measured[name][-1][0]:.2f} s", flush=True)
    finally:
        for runner in runners.values():
            runner.kill()
            runner.wait()
    return measured


def answer(measure: Callable[[], Sequence[float]]) -> None:
    """A contender's side of :func:`race`: its measurements, once for each line on stdin."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*measure(), flush=True)


def reset_peak() -> None:
    """Start the peak of resident memory again, at the current size (Linux)."""
    (PROCESS / "clear_refs").write_text("5")


def resident_bytes() -> int:
    """Resident memory of this process now (Linux)."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Peak resident memory of this process (Linux)."""
    return _status("VmHWM")


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", (PROCESS / "status").read_text())
    assert found
    return 1024 * int(found[1])


def _start(module: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(runner: subprocess.Popen[str]) -> list[float]:
    """The numbers of the next measurement."""
    assert runner.stdin
    runner.stdin.write("\n")
    runner.stdin.flush()
    return [float(number) for number in _read(runner).split()]


def _read(runner: subprocess.Popen[str]) -> str:
    assert runner.stdout
    return runner.stdout.readline()
