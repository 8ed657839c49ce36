"""`atrous bench`: every runtime and precision of a model, the split of an image's time, and what to make of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from atrous.bench.machine import Machine, measure_machine
from atrous.bench.opened import OPENER
from atrous.bench.stages import Split, measure_split
from atrous.data.dataset import Dataset
from atrous.data.files.images import read_image
from atrous.errors import InputError
from atrous.export.model import export_model
from atrous.export.quantize import TOLERATED
from atrous.inference.demo import find_demo_images
from atrous.inference.prepare import Precision
from atrous.models import loading
from atrous.models.base import SegmentationModel
from atrous.opening import exported_copy
from atrous.provenance import provenance
from atrous.runtime.engines import READS, is_exported, is_installed
from atrous.runtime.proof import AGREEMENT, equal_shares
from atrous.runtime.trial import TrialError, run_in_child

_BUSY = 0.5  # of the machine's matrix rate or memory bandwidth
_TRIALS = 10
_REPEATS = 3  # of each image


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


@dataclass(frozen=True)
class Setting:
    """A runtime and a precision, and what was measured of them.

    Args:
        runtime: torch, onnxruntime or openvino.
        precision: of the network; of an exported file "as exported", whichever that is.
        measured: what it costs; None if it failed.
        agreement: least share of an image's labels that are those of the first setting that ran.
        lost: points of mean IoU, 0 to 100, that int8 loses on images it was not calibrated with.
        failure: why it could not be measured.
    """

    runtime: str
    precision: str
    measured: Measured | None
    agreement: float = 0.0
    lost: float | None = None
    failure: str = ""

    @property
    def proven(self) -> bool:
        """Whether it ran here, and gave the reference's labels, or in int8 nearly its mean IoU."""
        if self.measured is None:
            return False
        return self.agreement >= AGREEMENT if self.precision != "int8" else _is_small(self.lost)


def _is_small(lost: float | None) -> bool:
    return lost is not None and lost <= TOLERATED


@dataclass(frozen=True)
class Task:
    """A setting to measure.

    Args:
        source: a name or path, as :func:`atrous.load` takes it.
        runtime: torch, onnxruntime or openvino.
        precision: of the network.
        options: of :class:`~atrous.bench.opened.Opened`.
        lost: as in :class:`Setting`.
    """

    source: str
    runtime: str
    precision: str
    options: dict[str, Any] = field(default_factory=dict)
    lost: float | None = None


@dataclass(frozen=True)
class Bench:
    """What :func:`bench` measured.

    Args:
        model: as it was named.
        size: height and width of the images.
        settings: each runtime and precision, the reference first.
        split: seconds of each stage of an image in torch; None for an exported file.
        machine: what the device can do at most.
        notes: what could not be tried.
    """

    model: str
    size: tuple[int, int]
    settings: tuple[Setting, ...]
    split: Split | None
    machine: Machine
    notes: tuple[str, ...] = ()

    @property
    def fastest(self) -> Setting | None:
        """The proven setting with the lowest latency; None if none is proven."""
        return _fastest(self.settings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with commit, hardware and versions."""
        settings = [asdict(setting) | {"proven": setting.proven} for setting in self.settings]
        found: dict[str, Any] = {
            "settings": settings,
            "fastest": self.fastest and {"runtime": self.fastest.runtime, "precision": self.fastest.precision},
            "origin": provenance(),
        }
        if self.split:
            matrix, memory = network_shares(self.split, self.machine)
            found["network"] = {"share_of_matrix_rate": matrix, "share_of_memory_bandwidth": memory}
            found["bottleneck"] = describe_bottleneck(self.split, self.machine)
        return asdict(self) | found


def bench(
    model: str,
    *,
    size: tuple[int, int] = (512, 512),
    device: torch.device | None = None,
    output_stride: int | None = None,
    calibrate: Dataset | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure a model on this machine.

    Every runtime and precision runs in a process of its own on real images of one size; one that crashes is a line.

    Args:
        model: as :func:`atrous.load` takes it.
        size: height and width of the images.
        device: of the torch settings; the CPU by default.
        output_stride: instead of the model's own.
        calibrate: images and masks for int8, which is measured too then: half of them give the ranges, the others tell
            what it loses.
        tell: called with a line before each measurement.

    Raises:
        InputError: a size below 1.
    """
    if min(size) < 1:
        raise InputError(f"--size is height and width in pixels, such as 512x512, not {size[0]}x{size[1]}")
    device = device or torch.device("cpu")
    images = sample_images(size)
    if is_exported(model):
        if calibrate is not None:
            raise InputError(f"{model} is exported already: int8 is made from a model's own folder")
        settings = _measure_all(_exported_tasks(model, "as exported"), images, tell)
        return Bench(model, size, settings, None, measure_machine(device))
    network = loading.load(model).to(device)
    if output_stride is not None:
        network.output_stride = output_stride
    tasks, notes = _torch_tasks(model, device, output_stride), list[str]()
    with TemporaryDirectory() as folder:
        if device.type == "cpu":
            try:
                tasks += _exported_tasks(str(exported_copy(model, output_stride, told=tell)))
                if calibrate is not None:
                    tell("exporting in int8")
                    tasks += _int8_tasks(network, Path(folder, "int8.onnx"), calibrate)
            except InputError as error:
                notes.append(f"not exported: {error}")
        settings = _measure_all(tasks, images, tell)
    tell("measuring where the time goes")
    best = _fastest([setting for setting in settings if setting.runtime == "torch"])
    precision: Any = best.precision if best else "float32"
    split = measure_split(network, images[0], precision, _TRIALS)
    return Bench(model, size, settings, split, measure_machine(device), tuple(notes))


def sample_images(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Real images of a size, uint8 RGB ``(N, H, W, 3)``: those of the demo, as they are and mirrored."""
    height, width = size
    images = [
        cv2.resize(read_image(file), (width, height), interpolation=cv2.INTER_AREA) for file in find_demo_images()
    ]
    return np.stack([turned for image in images for turned in (image, image[:, ::-1])]).astype(np.uint8)


def _torch_tasks(model: str, device: torch.device, output_stride: int | None) -> list[Task]:
    """Torch in each precision, the reference first."""
    precisions = sorted(get_args(Precision), key=lambda precision: precision != "float32")
    options = {"device": str(device), "output_stride": output_stride}
    return [Task(model, "torch", name, options | {"precision": name}) for name in precisions]


def _exported_tasks(file: str, precision: str = "float32") -> list[Task]:
    """An exported file in each installed runtime that reads it."""
    return [Task(file, runtime, precision) for runtime in READS[Path(file).suffix.lower()] if is_installed(runtime)]


def _int8_tasks(network: SegmentationModel, file: Path, calibrate: Dataset) -> list[Task]:
    """A network in int8, in each runtime in which its proof has a mean IoU."""
    lost = {seen.runtime: seen.lost for seen in export_model(network, file, calibrate=calibrate).int8}
    return [replace(task, lost=lost.get(task.runtime)) for task in _exported_tasks(str(file), "int8")]


def _measure_all(tasks: Sequence[Task], images: NDArray[np.uint8], tell: Callable[[str], None]) -> tuple[Setting, ...]:
    """Measure settings; the labels of the first that runs are the reference of the others."""
    reference: list[NDArray[np.uint8]] | None = None
    settings = []
    for task in tasks:
        tell(f"measuring {task.runtime} {task.precision}")
        try:
            trial = run_in_child(
                task.source,
                task.runtime,
                [image[None] for image in images],
                opener=OPENER,
                options=task.options,
                repeats=_REPEATS,
            )
        except TrialError as error:
            failure = str(error).removeprefix(f"{task.runtime} ")
            settings.append(Setting(task.runtime, task.precision, None, failure=failure))
            continue
        reference = reference or trial.labels
        facts = trial.facts
        cost = Measured(trial.start, statistics.median(trial.seconds), facts["throughput"], int(facts["memory"]))
        agreement = min(equal_shares(trial.labels, reference))
        settings.append(Setting(task.runtime, task.precision, cost, agreement, task.lost))
    return tuple(settings)


def _fastest(settings: Sequence[Setting]) -> Setting | None:
    latencies = {setting: setting.measured.latency for setting in settings if setting.proven and setting.measured}
    return min(latencies, key=latencies.__getitem__) if latencies else None


def describe_bottleneck(split: Split, machine: Machine) -> str:
    """A sentence on the stage that takes most of an image's time; of the network, also on what it waits for."""
    stages = {name: seconds for name, seconds in split.seconds.items() if name != "crf"}
    slowest = max(stages, key=lambda name: stages[name])
    share = stages[slowest] / sum(stages.values())
    found = f"{slowest} takes {share:.0%} of an image's time"
    if slowest != "network":
        return found
    matrix, memory = network_shares(split, machine)
    rates = f"{matrix:.0%} of the matrix rate and at least {memory:.0%} of the memory bandwidth of this machine"
    if max(matrix, memory) < _BUSY:
        return f"{found}; it reaches {rates}, so that its {split.layers} layers wait for neither alone"
    bound = "multiply-adds" if matrix >= memory else "memory"
    return f"{found}; it reaches {rates}: {bound} bound"


def network_shares(split: Split, machine: Machine) -> tuple[float, float]:
    """The shares of the machine's matrix rate and memory bandwidth that the network reaches."""
    seconds = split.seconds["network"]
    return split.multiply_adds / seconds / machine.multiply_adds, split.bytes / seconds / machine.bytes
