"""Measuring one setting, in a process of its own: what crashes there is a line of the report, and its peak memory is
its own. ``python -m atrous.bench.child``, with the :class:`Task` as JSON on stdin, prints a :class:`Measured`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.inference.side_by_side import Places, Processors, in_order

TIME_LIMIT = 600
Run = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Labels ``(H, W)`` of an image ``(H, W, 3)``."""


@dataclass(frozen=True)
class Task:
    """A setting to measure.

    Args:
        model: a name or path, as :func:`atrous.load` takes it, or an exported file.
        runtime: torch, onnxruntime or openvino.
        precision: of the network.
        images: NumPy file ``(N, H, W, 3)``, uint8.
        labels: NumPy file to write, ``(N, H, W)``.
        trials: timed runs.
        device: for torch.
        output_stride: the model's own if None.
        began: when the process was started, in seconds since 1970.
    """

    model: str
    runtime: str
    precision: str
    images: str
    labels: str
    trials: int
    device: str = "cpu"
    output_stride: int | None = None
    began: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What a setting costs.

    Args:
        start: seconds from the start of the process to the first labels, imports included.
        latency: seconds of an image, one at a time in all threads: the median.
        throughput: images per second, several at a time where that is how folders are predicted.
        memory: peak resident bytes of the process, on a GPU those allocated there; 0 where nothing tells.
    """

    start: float
    latency: float
    throughput: float
    memory: int


def measure_in_child(task: Task) -> Measured | str:
    """Measure a setting; a string says why it could not be."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "atrous.bench.child"],
            input=json.dumps(asdict(replace(task, began=time.time()))),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"no result after {TIME_LIMIT} s"
    if done.returncode < 0:
        return f"crashed: the process was ended by signal {-done.returncode}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"failed: {lines[-1]}"
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure the task on stdin."""
    task = Task(**json.load(sys.stdin))
    images = np.load(task.images)
    run, processors, peak = _open_torch(task) if task.runtime == "torch" else _open_exported(task)
    labels = [run(images[0])]
    start = time.time() - task.began
    labels += [run(image) for image in images[1:]]
    np.save(task.labels, np.stack(labels))
    repeated = [images[number % len(images)] for number in range(task.trials)]
    latency = statistics.median(_seconds(run, image) for image in repeated)
    places = Places(processors, len(repeated))

    def work(image: NDArray[np.uint8]) -> None:
        with places.taken(image.shape[0] * image.shape[1]):
            run(image)

    before = time.perf_counter()
    for _ in in_order(work, repeated, places.count):
        pass
    throughput = len(repeated) / (time.perf_counter() - before)
    print(json.dumps(asdict(Measured(start, latency, throughput, peak()))))


def _seconds(run: Run, image: NDArray[np.uint8]) -> float:
    before = time.perf_counter()
    run(image)
    return time.perf_counter() - before


def _open_torch(task: Task) -> tuple[Run, Processors, Callable[[], int]]:
    import torch

    from atrous.inference.predict import predict
    from atrous.models.loading import load

    model = load(task.model).to(task.device)
    options: dict[str, Any] = {"precision": task.precision, "output_stride": task.output_stride}
    if task.device != "cpu":
        return lambda image: predict(model, image, **options).labels, Processors(), torch.cuda.max_memory_allocated
    processors = Processors(torch.get_num_threads(), torch.set_num_threads)
    return lambda image: predict(model, image, **options).labels, processors, _peak_memory


def _open_exported(task: Task) -> tuple[Run, Processors, Callable[[], int]]:
    from atrous.runtime.exported import open_exported

    model = open_exported(task.model, task.runtime)  # type: ignore[arg-type]
    # Its own threads compute; a second image fills the gaps between the layers of the first.
    return lambda image: model.labels(image[None])[0], Processors(2), _peak_memory


def _peak_memory() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux, where resource counts the parent's memory too
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
