"""What may be set of a trained network at any time, as a dial: one checkpoint, its accuracy, time and memory at several
output strides (DeepLabv3+, arXiv 1802.02611, table 3), or with several merges of its scales (Attention to Scale).
"""

from __future__ import annotations

import copy
import io
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.evaluation.evaluate import Evaluation, Precision, evaluate
from atrous.evaluation.report import aligned, percent
from atrous.inference.test_time import Inference, View
from atrous.models.base import SegmentationModel

COUNTED_AT = 513
"""Side of the image that multiply-adds are counted for, as in the papers."""
LEAST_SPREAD = 0.1
"""The share of its costs that a plot's axis spans at least: what differs by less is hardly more than chance."""
MARGIN = 0.25
"""Space on each side of what a plot's axis spans."""


@dataclass(frozen=True)
class Setting:
    """What a model gives and costs as it was set.

    Args:
        dial: what was set, one of the model's ``dials``.
        value: to what.
        evaluation: how well it did.
        seconds: median time from an image to its labels; reading it is not included.
        memory: most bytes that were held at once, weights included: on a GPU by tensors, else by the whole process;
            None where the system can't tell.
        multiply_adds: of one look at an image of 513 × 513.
    """

    dial: str
    value: int | str
    evaluation: Evaluation
    seconds: float
    memory: int | None
    multiply_adds: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON knows it."""
        return {
            self.dial: self.value,
            "seconds_per_image": self.seconds,
            "peak_memory": self.memory,
            "multiply_adds_at_513": self.multiply_adds,
            **self.evaluation.to_dict(),
        }


def turn_dial(
    model: SegmentationModel,
    dataset: Dataset,
    values: Sequence[int] | Sequence[str],
    *,
    dial: Literal["output_stride", "merge"] = "output_stride",
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
    trimap: Sequence[int] = (),
    inference: Inference | None = None,
) -> list[Setting]:
    """Judge a model at several output strides, one after the other; what depends on the stride follows. Or with several
    merges of its scales' scores.

    Args:
        model: the model; it gets its own value back.
        dataset: images and masks.
        values: output strides, 4, 8, 16 or 32 each; or merges, ``attention``, ``average`` and ``max``.
        dial: what they are values of.
        precision: as for :func:`atrous.evaluation.evaluate.evaluate`, like the rest.
        progress: begins anew for each value.
        trimap: widths of bands along boundaries.
        inference: how an image becomes labels.

    Returns:
        The settings in the order of the values; output strides coarse to fine: memory that one has left behind does not
        count for the next then.

    Raises:
        ValueError: as evaluate does, or a value that the network can't have; nothing has been judged then.
    """
    device = next(model.parameters()).device
    channels = dataset[0].image.shape[2]
    if not values:
        raise InputError(f"no {_words(dial)} to judge at")
    ordered: list[int | str] = list(dict.fromkeys(values))
    if dial == "output_stride":
        ordered.sort(key=int, reverse=True)
    own, settings = model.turn(dial, ordered[0]), []
    counted: dict[int | str, int] = {}
    try:
        for value in ordered:
            model.turn(dial, value)
            counted[value] = multiply_adds(model, channels)
        for value in counted:
            model.turn(dial, value)
            timed = _Timed(**vars(inference or Inference()))
            _forget_peak(device)
            evaluation = evaluate(
                model, dataset, precision=precision, progress=progress, trimap=trimap, inference=timed
            )
            settings.append(
                Setting(dial, value, evaluation, statistics.median(timed.seconds), _peak(device), counted[value])
            )
    finally:
        model.turn(dial, own)
    return settings


def multiply_adds(model: SegmentationModel, channels: int = 3, size: int = COUNTED_AT) -> int:
    """Multiply-adds from an image ``(1, channels, size, size)`` to scores at network resolution, by PyTorch's counter.

    The papers' figures for atrous convolutions are up to 9 % higher: they hold the padding by which TensorFlow makes
    the sides of a map multiples of the rate.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin.coarse_logits(torch.empty(1, channels, size, size, device="meta"))
    return int(counter.get_total_flops()) // 2


def table(settings: Sequence[Setting]) -> str:
    """A row for each setting; markdown."""
    widths = list(settings[0].evaluation.trimap)
    head = [_words(settings[0].dial), "mean IoU %", *(f"within {width} px" for width in widths), "pixel accuracy %"]
    rows = [[*head, "s per image", "peak memory, MB", f"10⁹ multiply-adds at {COUNTED_AT}², one look"]]
    for setting in settings:
        scores, bands = setting.evaluation.metrics, setting.evaluation.trimap
        rows.append(
            [
                str(setting.value),
                percent(scores.mean_iou),
                *(percent(bands[width].metrics().mean_iou) for width in widths),
                percent(scores.pixel_accuracy),
                f"{setting.seconds:.3f}",
                "–" if setting.memory is None else f"{setting.memory / 1e6:.0f}",
                f"{setting.multiply_adds / 1e9:.2f}",
            ]
        )
    return aligned(rows)


def plot(settings: Sequence[Setting]) -> bytes:
    """Mean IoU over time and over memory, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = {"seconds per image": [s.seconds for s in settings]}
    if known := [s.memory / 1e6 for s in settings if s.memory is not None]:
        panels["peak memory, MB"] = known
    accuracy = [100 * s.evaluation.metrics.mean_iou for s in settings]
    for axes, (name, costs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.plot(costs, accuracy, marker="o", linestyle="-" if settings[0].dial == "output_stride" else "")
        for setting, cost, value in zip(settings, costs, accuracy, strict=True):
            axes.annotate(
                f"{_words(setting.dial)} {setting.value}",
                (cost, value),
                (0, 8),
                textcoords="offset points",
                ha="center",
            )
        axes.set(xlabel=name, ylabel="mean IoU, %", xlim=_limits(costs))
        axes.margins(y=MARGIN)
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", useOffset=False)
    figure.suptitle(f"{settings[0].evaluation.model} on {settings[0].evaluation.data}")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _limits(costs: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis on which costs that are nearly equal look so."""
    middle, spread = (max(costs) + min(costs)) / 2, max(costs) - min(costs)
    half = max(spread, LEAST_SPREAD * middle) * (0.5 + MARGIN)
    return middle - half, middle + half


def _words(dial: str) -> str:
    return dial.replace("_", " ")


@dataclass(frozen=True)
class _Timed(Inference):
    """A inference that notes how long each image takes."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, model: SegmentationModel, image: Tensor) -> tuple[Tensor, list[View]]:
        if not self.seconds:
            super().__call__(model, image)  # what is compiled or allocated once is not the first image's time
        begin = time.perf_counter()
        result = super().__call__(model, image)
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        self.seconds.append(time.perf_counter() - begin)
        return result


_PROCESS = Path("/proc/self")  # Linux tells a process its peak, and forgets it when asked


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (_PROCESS / "clear_refs").exists():
        (_PROCESS / "clear_refs").write_text("5")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not (_PROCESS / "status").exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", (_PROCESS / "status").read_text())
    return 1024 * int(found[1]) if found else None
