"""What an exported file was seen to do: its labels, probabilities and time in each runtime, beside torch's."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.models.base import SegmentationModel
from atrous.ops.labelmap.op import logits_to_labels
from atrous.runtime.engines import READS, is_installed
from atrous.runtime.examples import example_batches
from atrous.runtime.machine import file_hash, processor, versions
from atrous.runtime.proof import AGREEMENT, equal_shares
from atrous.runtime.trial import OPENER, TrialError, run_in_child

FORMAT = 1
"""Version of the proof as JSON."""
REPEATS = 3
"""Timed runs of each batch, after a first one; the median counts."""
Images = NDArray[np.uint8]


class ExportError(InputError):
    """An exported file that does not do what the model does; the message has the figures."""


@dataclass(frozen=True)
class Comparison:
    """A runtime beside torch on one batch of images.

    Args:
        runtime: what ran the file.
        shape: images, height and width.
        equal_labels: share of the labels that are torch's.
        largest_difference: of the class probabilities, from torch's.
        seconds: that the runtime took from images to labels.
        torch_seconds: that torch took, in the same minute.
    """

    runtime: str
    shape: tuple[int, int, int]
    equal_labels: float
    largest_difference: float
    seconds: float
    torch_seconds: float


@dataclass(frozen=True)
class Int8:
    """What int8 costs in one runtime, on images that it was not calibrated with.

    Args:
        runtime: what ran the file.
        data: the dataset.
        calibrated: images that it was calibrated with.
        evaluated: other images, on which the mean IoU was measured.
        mean_iou: of the int8 file.
        float_mean_iou: of the float32 file.
    """

    runtime: str
    data: str
    calibrated: int
    evaluated: int
    mean_iou: float
    float_mean_iou: float

    @property
    def lost(self) -> float:
        """Points of mean IoU, 0 to 100."""
        return 100 * (self.float_mean_iou - self.mean_iou)


@dataclass(frozen=True)
class Proof:
    """What was seen of an exported file on one machine.

    Args:
        file: its name.
        sha256: of the file, with its weights.
        model: architecture, backbone and output stride.
        processor: of the machine.
        versions: of the packages.
        comparisons: of each runtime and batch that ran.
        failures: why a runtime did not run, by its name.
        int8: of each runtime, for an int8 file.
        good: whether the file may be used: a runtime ran, and none that ran gave other labels (float32) or lost too
            much mean IoU (int8).
    """

    file: str
    sha256: str
    model: dict[str, Any]
    processor: str
    versions: dict[str, str]
    comparisons: tuple[Comparison, ...]
    failures: dict[str, str] = field(default_factory=dict)
    int8: tuple[Int8, ...] = ()
    good: bool = True

    def to_json(self) -> str:
        """Everything, as JSON text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    def lines(self) -> list[str]:
        """The same in a few lines, for the screen."""
        lines = [
            f"{c.runtime}: {c.shape[0]} × {c.shape[1]}×{c.shape[2]}: {c.equal_labels:.3%} of labels as in torch, "
            f"probabilities within {c.largest_difference:.1e}, {1e3 * c.seconds:.0f} ms (torch "
            f"{1e3 * c.torch_seconds:.0f} ms, {c.torch_seconds / c.seconds:.1f}×)"
            for c in self.comparisons
        ]
        lines += [
            f"{i.runtime}: int8 mean IoU {100 * i.mean_iou:.2f} %, float32 {100 * i.float_mean_iou:.2f} % on "
            f"{i.evaluated} images of {i.data} (calibrated with {i.calibrated} others)"
            for i in self.int8
        ]
        return lines + [f"{runtime}: failed: {reason}" for runtime, reason in self.failures.items()]


def proof_file(file: Path) -> Path:
    """Where the proof of an exported file lies: beside it."""
    return file.with_suffix(".proof.json")


def prove(
    model: SegmentationModel, file: Path, twin: Path, runtimes: Sequence[str] | None = None, *, exact: bool = True
) -> Proof:
    """Run an exported file in each installed runtime, each in a child process, beside the model in torch.

    Args:
        model: what was exported, in eval mode, on the CPU, at the file's output stride.
        file: what is proven, and timed.
        twin: the same file with the output ``probabilities``, or the file itself.
        runtimes: to run it in; those installed that read it when left out.
        exact: whether its labels have to be torch's; those of an int8 file need not.
    """
    batches = example_batches(model.backbone.in_channels)
    truths = [_truth(model, batch) for batch in batches]
    before = [_time(partial(_labels, model, batch)) for batch in batches]
    opener = OPENER if file.suffix in READS else "atrous.export.torch_file:TorchProgram"
    comparisons, failures = [], {}
    for runtime in runtimes or [name for name in READS.get(file.suffix, ("torch",)) if _installed(name)]:
        try:
            timed = run_in_child(file, runtime, batches, opener=opener, repeats=REPEATS)
            full = timed if twin == file else run_in_child(twin, runtime, batches, opener=opener, repeats=0)
        except TrialError as error:
            failures[runtime] = str(error)
            continue
        after = [_time(partial(_labels, model, batch)) for batch in batches]
        shares = equal_shares(timed.labels, [labels for labels, _ in truths])
        for number, (_, probabilities) in enumerate(truths):
            comparisons.append(
                Comparison(
                    runtime,
                    timed.labels[number].shape,
                    shares[number],
                    float(np.abs(full.probabilities[number] - probabilities).max()),
                    timed.seconds[number],
                    (before[number] + after[number]) / 2,
                )
            )
        before = after
    same = all(c.equal_labels >= AGREEMENT for c in comparisons)
    return Proof(
        file.name,
        file_hash(file),
        {"architecture": model.name, "backbone": model.backbone.name, **model.settings},
        processor().partition(";")[0] + ";" + processor().rpartition(";")[2],
        versions("atrous", "torch", "timm", "onnx", "onnxruntime", "openvino") | {"python": platform.python_version()},
        tuple(comparisons),
        failures,
        good=bool(comparisons) and (same or not exact),
    )


def _installed(runtime: str) -> bool:
    return runtime == "torch" or is_installed(runtime)  # type: ignore[arg-type]


def _truth(model: SegmentationModel, batch: Images) -> tuple[Images, NDArray[np.float32]]:
    """Labels and probabilities by eager torch."""
    with torch.inference_mode():
        logits = model(model.preprocess(torch.from_numpy(batch).permute(0, 3, 1, 2)))
        return logits.argmax(1).to(torch.uint8).numpy(), logits.softmax(1).numpy()


def _labels(model: SegmentationModel, batch: Images) -> torch.Tensor:
    """Labels as :func:`atrous.predict` finds them."""
    with torch.inference_mode():
        images = torch.from_numpy(batch).permute(0, 3, 1, 2)
        logits, grid = model.coarse_logits(model.preprocess(images).contiguous(memory_format=torch.channels_last))
        return logits_to_labels(logits, grid, (batch.shape[1], batch.shape[2]))


def _time(run: Callable[[], object], repeats: int = REPEATS) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return median(seconds) if seconds else float("nan")
