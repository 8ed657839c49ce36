"""Run many mutated inputs through every target: ``python -m tests.fuzz --n 10000``.

An interrupted run continues where it stopped; its state and the files of each kind of failure are in runs/fuzz.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from atrous.files import write_atomically
from atrous.provenance import provenance
from studies.results import Result, Section, command_line, origin_of
from tests.fuzz.harness import MEMORY, ROOT, SECONDS, TARGETS, Counts, Worker, load, run_cases

BATCH = 50
"""Cases between two notes of the state."""
NOTES = (
    "Each case is a healthy file with one to four changes (bytes anywhere; chunks, members, headers, keys and values "
    "with checksums made right) that is read as a command would read it.",
    f"Allowed are a result and an `AtrousError`. A failure is any other exception, a crash, more than {SECONDS} s of "
    f"processor time, or more than {MEMORY / 2**30:.0f} GB of memory (`ATROUS_DECODE_LIMIT_GB` is a quarter of it).",
)


def main(
    n: Annotated[int, typer.Option(help="Cases per target.")] = 10_000,
    target: Annotated[list[str] | None, typer.Option(help="Only this target; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the mutations.")] = 0,
    minutes: Annotated[float, typer.Option(help="Time after which the run stops; it can be continued.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Markdown page of the counts, for example results/fuzz.md.")] = None,
) -> None:
    """Run mutated inputs through every target and count what comes of them."""
    commit = provenance()["commit"] or "installed"
    folder = ROOT / "runs" / "fuzz" / f"{commit}-{seed}"
    names = target or list(load(TARGETS))
    counts = {name: _read(folder / f"{name}.json") for name in names}
    end = time.monotonic() + 60 * minutes
    with Worker() as worker:
        for begin in range(0, n, BATCH):
            for name, found in counts.items():
                if found.cases >= min(begin + BATCH, n) or time.monotonic() > end:
                    continue
                run_cases(worker, name, range(found.cases, min(begin + BATCH, n)), found, seed, folder)
                write_atomically(folder / f"{name}.json", json.dumps(asdict(found)).encode())
    for name, found in counts.items():
        print(_line(name, found))
    if out:
        page(counts, seed).write(out.with_suffix(""))
    raise typer.Exit(any(found.failures for found in counts.values()))


def _read(file: Path) -> Counts:
    return Counts(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else Counts()


def _line(name: str, found: Counts) -> str:
    lines = [f"{name}: {found.cases} cases, {found.results} results, {found.errors} AtrousErrors"]
    lines += [f"  {failure['count']} × {kind}: {failure['files']}" for kind, failure in found.failures.items()]
    return "\n".join(lines)


def page(counts: dict[str, Counts], seed: int) -> Result:
    """The page of the counts."""
    rows = [["target", "cases", "results", "AtrousErrors", "failures"]]
    rows += [
        [name, *(f"{number:,}" for number in (found.cases, found.results, found.errors, _failed(found)))]
        for name, found in counts.items()
    ]
    kinds = [f"{name}: {f['count']} × {kind}" for name, found in counts.items() for kind, f in found.failures.items()]
    facts: dict[str, Any] = {name: {**asdict(found), "failures": _kinds(found)} for name, found in counts.items()}
    below = "\n".join(["Failures by kind:", "", *(f"- {kind}" for kind in kinds)]) if kinds else "No failures."
    command = command_line("tests.fuzz")
    return Result(
        "Mutated input files",
        command,
        NOTES,
        {"counts": Section("", "", rows, below, facts, origin_of(command, seed=seed))},
    )


def _failed(found: Counts) -> int:
    return sum(_kinds(found).values())


def _kinds(found: Counts) -> dict[str, int]:
    return {kind: failure["count"] for kind, failure in found.failures.items()}


if __name__ == "__main__":
    typer.run(main)
