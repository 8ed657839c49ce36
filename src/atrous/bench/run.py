"""`atrous bench`: every runtime and precision of a model, the split of an image's time, and what to make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from atrous.bench.child import Measured, Task, measure_in_child
from atrous.bench.machine import Machine, measure_machine
from atrous.bench.stages import Split, measure_split
from atrous.data.files.images import read_image
from atrous.errors import InputError
from atrous.export.model import export_model
from atrous.inference.demo import find_demo_images
from atrous.inference.prepare import Precision
from atrous.models import loading
from atrous.provenance import provenance
from atrous.runtime.engines import READS, is_exported, is_installed

AGREEMENT = 0.995
"""The least share of labels equal to the reference's of a setting that is proven."""
_BUSY = 0.5  # of the machine's matrix rate or memory bandwidth
_TRIALS = 10


@dataclass(frozen=True)
class Setting:
    """A runtime and a precision, and what was measured of them.

    Args:
        runtime: torch, onnxruntime or openvino.
        precision: of the network.
        measured: what it costs; None if it failed.
        agreement: share of labels equal to those of the first setting that ran.
        failure: why it could not be measured.
    """

    runtime: str
    precision: str
    measured: Measured | None
    agreement: float = 0.0
    failure: str = ""

    @property
    def proven(self) -> bool:
        """Whether it ran here, and gave the reference's labels."""
        return self.measured is not None and self.agreement >= AGREEMENT


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
    tell: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure a model on this machine.

    Every runtime and precision runs in a process of its own on real images of one size; one that crashes is a line.

    Args:
        model: as :func:`atrous.load` takes it.
        size: height and width of the images.
        device: of the torch settings; the CPU by default.
        output_stride: instead of the model's own.
        tell: called with a line before each measurement.

    Raises:
        InputError: a size below 1.
    """
    if min(size) < 1:
        raise InputError(f"--size is height and width in pixels, such as 512x512, not {size[0]}x{size[1]}")
    device = device or torch.device("cpu")
    images = sample_images(size)
    with TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), images)
        if is_exported(model):
            settings = _measure_all(_exported_tasks(model, Path(folder)), tell)
            return Bench(model, size, settings, None, measure_machine(device))
        network = loading.load(model).to(device)
        if output_stride is not None:
            network.output_stride = output_stride
        tasks, notes = _torch_tasks(model, Path(folder), device, output_stride), list[str]()
        if device.type == "cpu":
            tell("exporting")
            exported = Path(folder, "model.onnx")
            try:
                export_model(network, exported)
                tasks += _exported_tasks(str(exported), Path(folder))
            except InputError as error:
                notes.append(f"not exported: {error}")
        settings = _measure_all(tasks, tell)
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


def _torch_tasks(model: str, folder: Path, device: torch.device, output_stride: int | None) -> list[Task]:
    """Torch in each precision, the reference first."""
    precisions = sorted(get_args(Precision), key=lambda precision: precision != "float32")
    task = Task(model, "torch", "", str(folder / "images.npy"), "", _TRIALS, str(device), output_stride)
    return [replace(task, precision=name, labels=str(folder / f"torch-{name}.npy")) for name in precisions]


def _exported_tasks(file: str, folder: Path) -> list[Task]:
    """An exported file in each installed runtime that reads it."""
    runtimes = [runtime for runtime in READS[Path(file).suffix.lower()] if is_installed(runtime)]
    task = Task(file, "", "float32", str(folder / "images.npy"), "", _TRIALS)
    return [replace(task, runtime=name, labels=str(folder / f"{name}.npy")) for name in runtimes]


def _measure_all(tasks: Sequence[Task], tell: Callable[[str], None]) -> tuple[Setting, ...]:
    """Measure settings; the labels of the first that runs are the reference of the others."""
    reference: NDArray[np.uint8] | None = None
    settings = []
    for task in tasks:
        tell(f"measuring {task.runtime} {task.precision}")
        measured = measure_in_child(task)
        if isinstance(measured, str):
            settings.append(Setting(task.runtime, task.precision, None, failure=measured))
            continue
        labels = np.load(task.labels)
        reference = labels if reference is None else reference
        settings.append(Setting(task.runtime, task.precision, measured, float((labels == reference).mean())))
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
