"""Running an exported model in a child process: a runtime that ends its process ends the child, not the caller.

That happens: a processor announces instructions that its virtual machine does not carry out, and the runtime is killed.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.runtime.engines import ExportedModelError, Runtime
from atrous.runtime.examples import example_batches
from atrous.runtime.exported import ExportedModel, open_exported

_MODULE = "atrous.runtime.trial"
_GROUPS = ("batches", "labels", "probabilities")
_LONGEST = 600
"""Seconds after which a child is ended."""


class TrialError(ExportedModelError):
    """A runtime that failed, hung or was killed in its child process; the message says how."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What an exported model computed in a child process.

    Args:
        batches: the images, uint8 ``(N, H, W, C)`` each.
        labels: uint8 ``(N, H, W)`` for each batch.
        probabilities: float32 ``(N, C, H, W)`` for each batch; empty if the file computes none.
        seconds: of each batch, the median of the repetitions after a first run.
        opening: seconds that opening the file took.
    """

    batches: list[NDArray[np.uint8]]
    labels: list[NDArray[np.uint8]]
    probabilities: list[NDArray[np.float32]]
    seconds: list[float]
    opening: float


def run_in_child(
    file: Path,
    runtime: str,
    batches: Sequence[NDArray[np.uint8]] | None = None,
    *,
    repeats: int = 3,
    timeout: float = _LONGEST,
) -> Trial:
    """Run an exported model on batches of images in a process of its own.

    Args:
        file: the exported model.
        runtime: what runs it.
        batches: uint8 ``(N, H, W, C)`` each, of any sizes; by default those of
            :func:`~atrous.runtime.examples.example_batches`.
        repeats: timed runs of each batch, after a first one; without any, ``seconds`` are NaN.
        timeout: seconds after which the child is ended.

    Raises:
        TrialError: the child failed, was killed, or took too long.
    """
    with TemporaryDirectory(prefix="atrous-trial-") as folder:
        images, results = Path(folder, "images.npz"), Path(folder, "results.npz")
        if batches is not None:
            np.savez(images, *batches)
        command = [sys.executable, "-m", _MODULE, str(file), runtime, str(images), str(results), str(repeats)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise TrialError(f"{runtime} took longer than {timeout:g} s") from None
        if done.returncode or not results.is_file():
            raise TrialError(f"{runtime} {_describe_end(done)}")
        with np.load(results) as stored:
            groups = {name: [stored[key] for key in stored if key.startswith(f"{name}_")] for name in _GROUPS}
            return Trial(**groups, seconds=stored["seconds"].tolist(), opening=float(stored["opening"]))


def _describe_end(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        number = -done.returncode
        known = {entry.value: entry.name for entry in signal.Signals}
        return f"was killed by {known.get(number, f'signal {number}')}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"ended with exit code {done.returncode}" + (f": {lines[-1][:300]}" if lines else "")


def _run(file: str, runtime: Runtime, images: str, results: str, repeats: str) -> None:
    """The child: run every batch, and write what came out of it."""
    begin = time.perf_counter()
    model = open_exported(file, runtime)
    opening = time.perf_counter() - begin
    outputs: dict[str, NDArray[Any]] = {}
    seconds = []
    for number, batch in enumerate(_batches(images, model.in_channels)):
        outputs[f"batches_{number}"] = batch
        if model.has_probabilities:
            outputs[f"labels_{number}"], outputs[f"probabilities_{number}"] = model.labels_and_probabilities(batch)
        else:
            outputs[f"labels_{number}"] = model.labels(batch)
        times = [_time(model, batch) for _ in range(int(repeats))]
        seconds.append(median(times) if times else math.nan)
    np.savez(results, **outputs | {"seconds": np.array(seconds), "opening": np.array(opening)})  # type: ignore[arg-type]


def _batches(images: str, channels: int) -> list[NDArray[np.uint8]]:
    if not Path(images).is_file():
        return example_batches(channels)
    with np.load(images) as stored:
        return list(stored.values())


def _time(model: ExportedModel, batch: NDArray[np.uint8]) -> float:
    begin = time.perf_counter()
    model.labels(batch)
    return time.perf_counter() - begin


if __name__ == "__main__":
    _run(*sys.argv[1:])  # type: ignore[arg-type]
