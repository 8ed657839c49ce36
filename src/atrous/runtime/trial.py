"""Running a model in a child process: a runtime that ends its process ends the child, not the caller.

That happens: a processor announces instructions that its virtual machine does not carry out, and the runtime is killed.
Proofs, verdicts and ``atrous bench`` all try their models here.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.runtime.engines import ExportedModelError
from atrous.runtime.examples import example_batches

_MODULE = "atrous.runtime.trial"
_GROUPS = ("batches", "labels", "probabilities")
_LONGEST = 600
"""Seconds after which a child is ended."""
OPENER = "atrous.runtime.exported:open_exported"
"""What opens an exported file."""


class TrialError(ExportedModelError):
    """A runtime that failed, hung or was killed in its child process; the message says how."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What a model computed in a child process.

    Args:
        batches: the images, uint8 ``(N, H, W, C)`` each.
        labels: uint8 ``(N, H, W)`` for each batch.
        probabilities: float32 ``(N, C, H, W)`` for each batch; empty if the file computes none.
        seconds: of each batch, the median of the repetitions after a first run.
        start: seconds from the start of the process to the first labels.
        facts: what else the opened model measured, by name.
    """

    batches: list[NDArray[np.uint8]]
    labels: list[NDArray[np.uint8]]
    probabilities: list[NDArray[np.float32]]
    seconds: list[float]
    start: float
    facts: dict[str, float] = field(default_factory=dict)


def run_in_child(
    source: str | Path,
    runtime: str,
    batches: Sequence[NDArray[np.uint8]] | None = None,
    *,
    opener: str = OPENER,
    options: Mapping[str, Any] | None = None,
    repeats: int = 3,
    timeout: float = _LONGEST,
) -> Trial:
    """Run a model on batches of images in a process of its own.

    Args:
        source: the model: an exported file, or whatever ``opener`` opens.
        runtime: what runs it.
        batches: uint8 ``(N, H, W, C)`` each, of any sizes; by default those of
            :func:`~atrous.runtime.examples.example_batches`.
        opener: ``"module:function"``, called in the child with the source, the runtime and the options. It returns an
            object with ``in_channels`` and ``labels(images)``; if ``has_probabilities`` of it is true, also with
            ``labels_and_probabilities(images)``. Its ``measure(batches)``, if there is one, gives the facts.
        options: more arguments of the opener, by name; JSON values.
        repeats: timed runs of each batch, after a first one; without any, ``seconds`` are NaN.
        timeout: seconds after which the child is ended.

    Raises:
        TrialError: the child failed, was killed, or took too long.
    """
    with TemporaryDirectory(prefix="atrous-trial-") as folder:
        task, images, results = (Path(folder, name) for name in ("task.json", "images.npz", "results.npz"))
        if batches is not None:
            np.savez(images, *batches)
        facts = {"source": str(source), "runtime": runtime, "opener": opener, "options": dict(options or {})}
        task.write_text(json.dumps(facts | {"repeats": repeats, "began": time.time()}), encoding="utf-8")
        try:
            command = [sys.executable, "-m", _MODULE, folder]
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise TrialError(f"{runtime} took longer than {timeout:g} s") from None
        if done.returncode or not results.is_file():
            raise TrialError(f"{runtime} {_describe_end(done)}")
        with np.load(results) as stored:
            groups = {name: [stored[key] for key in stored if key.startswith(f"{name}_")] for name in _GROUPS}
            measured: dict[str, Any] = {**groups, **json.loads(str(stored["measured"]))}
            return Trial(**measured)


def _describe_end(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        number = -done.returncode
        known = {entry.value: entry.name for entry in signal.Signals}
        return f"was killed by {known.get(number, f'signal {number}')}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"ended with exit code {done.returncode}" + (f": {lines[-1][:300]}" if lines else "")


def _run(folder: Path) -> None:
    """The child: run every batch, and write what came out of it."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    module, _, name = task["opener"].partition(":")
    model = getattr(import_module(module), name)(task["source"], task["runtime"], **task["options"])
    batches = _batches(folder / "images.npz", model.in_channels)
    outputs: dict[str, NDArray[Any]] = {}
    seconds, start = [], 0.0
    for number, batch in enumerate(batches):
        outputs[f"batches_{number}"] = batch
        if getattr(model, "has_probabilities", False):
            outputs[f"labels_{number}"], outputs[f"probabilities_{number}"] = model.labels_and_probabilities(batch)
        else:
            outputs[f"labels_{number}"] = model.labels(batch)
        start = start or time.time() - task["began"]
        times = [_time(model, batch) for _ in range(task["repeats"])]
        seconds.append(median(times) if times else math.nan)
    facts = model.measure(batches) if hasattr(model, "measure") else {}
    measured = json.dumps({"seconds": seconds, "start": start, "facts": facts})
    np.savez(folder / "results.npz", **outputs, measured=np.array(measured))  # type: ignore[arg-type]


def _batches(images: Path, channels: int) -> list[NDArray[np.uint8]]:
    if not images.is_file():
        return example_batches(channels)
    with np.load(images) as stored:
        return list(stored.values())


def _time(model: Any, batch: NDArray[np.uint8]) -> float:
    begin = time.perf_counter()
    model.labels(batch)
    return time.perf_counter() - begin


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
