"""Running mutated inputs in a child process with limits, and sorting what comes of them.

The child imports the package once and runs many cases; after a crash or a case without end a new one is started.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import IO, Any

from atrous.errors import AtrousError
from tests.fuzz.mutations import mutate

ROOT = Path(__file__).resolve().parents[2]
TARGETS = "tests.fuzz.targets"
MEMORY = 2 * 2**30
"""Bytes that a case may take beside the package itself; ``ATROUS_DECODE_LIMIT_GB`` is a quarter of that."""
SECONDS = 10
"""Processor time that a case may take."""
ENDLESS = 600
"""Seconds after which a case that waits is ended; one that computes is ended soon after ``SECONDS``."""
RESTART = 2000
"""Cases after which a new child is started."""
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Target:
    """Something that reads files of a kind.

    Args:
        seeds: makes the files of healthy inputs.
        run: reads the files in a folder.
        mutable: the files that are mutated, by the end of their names.
    """

    seeds: Callable[[], list[Files]]
    run: Callable[[Path], object]
    mutable: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Case:
    """A mutated input: the number of its draws, and which of its changes are made (all if none are named)."""

    target: str
    number: int
    seed: int = 0
    only: int | None = None

    def files(self, target: Target) -> Files:
        """The files; most cases have one change, some several; the first cases are the seeds themselves."""
        random = Random(f"{self.seed}:{self.target}:{self.number}")
        seeds = target.seeds()
        if self.number < len(seeds):
            return seeds[self.number]
        files = dict(random.choice(seeds))
        mutable = [name for name in files if name.endswith(target.mutable)]
        for change in range(self.changes()):
            name = random.choice(mutable)
            draws = Random(random.getrandbits(64))
            if self.only in (None, change):
                files[name] = mutate(name, files[name], draws)
        return files

    def changes(self) -> int:
        """The number of changes."""
        return Random(f"changes {self.seed}:{self.target}:{self.number}").choice((1, 1, 1, 2, 4))


@dataclass
class Counts:
    """What came of the cases of a target: results, AtrousErrors, and failures by kind with their first case."""

    cases: int = 0
    results: int = 0
    errors: int = 0
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)


class Worker:
    """A child process that runs cases."""

    def __init__(self, module: str = TARGETS) -> None:
        self.module = module
        self.process: subprocess.Popen[str] | None = None
        self.cases = 0

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, case: Case) -> dict[str, Any]:
        """The outcome of a case: ``kind`` (result, error or the kind of failure) and ``detail``."""
        if self.cases >= RESTART:  # caches of the package grow
            self.stop()
        process = self._started()
        self.cases += 1
        assert process.stdin is not None
        process.stdin.write(json.dumps([case.target, case.number, case.seed, case.only]) + "\n")
        process.stdin.flush()
        answer = _line(process.stdout, ENDLESS)
        if answer:
            return json.loads(answer)
        self.stop()
        code = process.returncode
        if answer is None:
            return {"kind": f"no end after {ENDLESS} s", "detail": ""}
        if code == -signal.SIGXCPU:
            return {"kind": f"more than {SECONDS} s", "detail": "ended"}
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return {"kind": f"crash {name}", "detail": ""}

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.cases = 0
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.harness", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            if not _line(self.process.stdout, ENDLESS):
                raise RuntimeError(f"{self.module} cannot be imported in a child process")
        return self.process

    def stop(self) -> None:
        """End the child."""
        if self.process:
            if self.process.poll() is None and select.select([self.process.stdout], [], [], 0)[0] == []:
                self.process.kill()
            self.process.communicate()
            self.process = None


_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ATROUS_DECODE_LIMIT_GB": str(MEMORY / 4e9)}


def _line(stream: IO[str] | None, seconds: float) -> str | None:
    """A line of the child; empty if it has ended, None if there is none in time."""
    assert stream is not None
    ready, _, _ = select.select([stream], [], [], seconds)
    return stream.readline() if ready else None


def run_cases(worker: Worker, target: str, numbers: Iterable[int], counts: Counts, seed: int, keep: Path) -> None:
    """Run cases and count what comes of them; the files of the first case of each failure are kept in a folder."""
    for number in numbers:
        case = Case(target, number, seed)
        outcome = worker.run(case)
        counts.cases += 1
        kind = outcome["kind"]
        if kind == "result":
            counts.results += 1
        elif kind == "error":
            counts.errors += 1
        elif kind in counts.failures:
            counts.failures[kind]["count"] += 1
        else:
            smallest = _smallest(worker, case, kind)
            folder = keep / target / f"{number:06}"
            _write(folder, smallest.files(load(worker.module)[target]))
            shown = {"number": number, "only": smallest.only, "files": str(folder)}
            counts.failures[kind] = {"count": 1, "detail": outcome["detail"], **shown}


def _smallest(worker: Worker, case: Case, kind: str) -> Case:
    """The case with a single one of its changes, if that fails in the same way."""
    if case.changes() == 1:
        return case
    single = (Case(case.target, case.number, case.seed, change) for change in range(case.changes()))
    return next((smaller for smaller in single if worker.run(smaller)["kind"] == kind), case)


def load(module: str) -> Mapping[str, Target]:
    """The targets of a module."""
    targets: Mapping[str, Target] = importlib.import_module(module).TARGETS
    return targets


def _write(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _serve(module: str) -> None:
    """Run cases from standard input; one line of JSON on standard output for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print
    warnings.simplefilter("ignore")
    targets = load(module)
    for target in targets.values():
        target.seeds()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    print("ready", file=answers, flush=True)
    warm = set()
    with tempfile.TemporaryDirectory() as folder:
        for place, line in enumerate(sys.stdin):
            case = Case(*json.loads(line))
            target, there = targets[case.target], Path(folder) / str(place)
            if case.target not in warm:  # kernels are compiled when they are first needed
                warm.add(case.target)
                _outcome(Case(case.target, 0), target, there, ENDLESS)
            print(json.dumps(_outcome(case, target, there, SECONDS)), file=answers, flush=True)


def _outcome(case: Case, target: Target, folder: Path, limit: int) -> dict[str, str]:
    _write(folder, case.files(target))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    begin = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(begin) + limit + 2, resource.RLIM_INFINITY))
    try:
        target.run(folder)
        kind, detail = "result", ""
    except (AtrousError, FileNotFoundError) as error:
        kind, detail = "error", str(error)[:1000]
    except BaseException as error:
        kind, detail = _kind(error), "".join(traceback.format_exception(error))[-3000:]
    seconds = time.process_time() - begin
    shutil.rmtree(folder, ignore_errors=True)
    return {"kind": f"more than {limit} s" if seconds > limit else kind, "detail": detail}


def _kind(error: BaseException) -> str:
    """The type of an exception and the innermost function of the package that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/atrous/" in frame.filename]
    where = f" in {frames[-1].filename.partition('/atrous/')[2]}:{frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"


if __name__ == "__main__":
    _serve(sys.argv[1])
