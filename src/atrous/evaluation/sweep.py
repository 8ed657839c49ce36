"""Evaluating one checkpoint at several settings: its accuracy, time and memory at several output strides (DeepLabv3+,
arXiv 1802.02611, table 3), or with several ways of merging scales (Attention to Scale, arXiv 1511.03339).
"""

from __future__ import annotations

import copy
import io
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.evaluation.evaluate import Evaluation, evaluate
from atrous.evaluation.report import aligned, percent
from atrous.inference.fast import give_back_freed_memory
from atrous.inference.prepare import Precision
from atrous.inference.test_time import Inference, Network, with_merge
from atrous.models.base import SegmentationModel
from atrous.models.multi_scale import MultiScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.transforms import Bbox

Parameter = Literal["output_stride", "merge"]
COUNTED_AT = 513
"""Side of the image that multiply-adds are counted for, as in the papers."""
MIN_AXIS_RANGE = 0.1
"""The least range of a plot's cost axis, relative to the costs, so that noise does not look like a difference."""
MIN_ACCURACY_RANGE = 2.0
"""The least range of a plot's accuracy axis in percent, so that a quarter of a percent does not look like a finding."""
MARGIN = 0.25
"""Space on each side of a plot's axis, relative to its range."""
LABEL_OFFSETS = tuple((side, way * height) for height in range(13, 79, 13) for side in (0, 45, -45) for way in (1, -1))
"""Places beside a plot's point, in points, that are tried for its label."""


@dataclass(frozen=True)
class SweepPoint:
    """Accuracy and cost of a model at one setting.

    Args:
        parameter: what was varied.
        value: its value.
        evaluation: the evaluation at this value.
        seconds: median time from an image in memory to its labels.
        memory: peak memory in bytes, including weights: tensors on a GPU, otherwise the whole process; None if the
            system does not report it.
        multiply_adds: of one view of an image of 513 × 513.
    """

    parameter: Parameter
    value: int | str
    evaluation: Evaluation
    seconds: float
    memory: int | None
    multiply_adds: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            self.parameter: self.value,
            "seconds_per_image": self.seconds,
            "peak_memory": self.memory,
            "multiply_adds_at_513": self.multiply_adds,
            **self.evaluation.to_dict(),
        }


def sweep(
    model: SegmentationModel,
    dataset: Dataset,
    parameter: Parameter,
    values: Sequence[int] | Sequence[str],
    *,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
    trimap: Sequence[int] = (),
    inference: Inference | None = None,
) -> list[SweepPoint]:
    """Evaluate one model at several output strides, or with several ways of merging scales.

    Args:
        model: the model; its own settings are restored afterwards.
        dataset: images and masks.
        parameter: what is varied. ``merge`` is that of the network's own scales if it has several, otherwise that of
            the test-time views (:func:`atrous.inference.test_time.with_merge`).
        values: its values; output strides are 4, 8, 16 or 32.
        precision: as in :func:`atrous.evaluation.evaluate.evaluate`, like the rest.
        progress: as for ``evaluate``; restarts for each value.
        trimap: widths of bands along boundaries.
        inference: how an image becomes labels.

    Returns:
        A point for each value. Output strides go from coarse to fine, so that the memory of one does not count for the
        next; merges are in the given order.

    Raises:
        InputError: as ``evaluate`` does, or a value that the network does not support; nothing has been evaluated then.
    """
    ordered: list[int | str] = list(dict.fromkeys(values))
    if not ordered:
        raise InputError(f"a sweep needs at least one {_spaced(parameter)}")
    if parameter == "output_stride":
        ordered.sort(key=int, reverse=True)
    channels, device = dataset[0].image.shape[2], next(model.parameters()).device
    inference = inference or Inference()
    points, costs = [], {}
    with _restored(model):
        for value in ordered:  # each value is tried before the first evaluation
            _set(model, inference, parameter, value)
            costs[value] = multiply_adds(model, channels)
        for value, cost in costs.items():
            timed = _TimedInference(**vars(_set(model, inference, parameter, value)))
            _reset_peak_memory(device)
            found = evaluate(model, dataset, precision=precision, progress=progress, trimap=trimap, inference=timed)
            seconds = statistics.median(timed.seconds)
            points.append(SweepPoint(parameter, value, found, seconds, _peak_memory(device), cost))
    return points


def _set(model: SegmentationModel, inference: Inference, parameter: Parameter, value: int | str) -> Inference:
    """Set a parameter of the model, or of the inference, which is returned."""
    if parameter == "merge":
        return with_merge(model, inference, str(value))
    model.output_stride = int(value)
    return inference


@contextmanager
def _restored(model: SegmentationModel) -> Iterator[None]:
    stride, merge = model.output_stride, model.merge if isinstance(model, MultiScale) else None
    try:
        yield
    finally:
        model.output_stride = stride
        if isinstance(model, MultiScale) and merge is not None:
            model.merge = merge


def multiply_adds(model: SegmentationModel, channels: int = 3, size: int = COUNTED_AT) -> int:
    """Count the multiply-adds from an image ``(1, channels, size, size)`` to coarse logits, with PyTorch's counter.

    The papers' figures for atrous convolutions are up to 9 % higher: they include the padding with which TensorFlow
    makes the sides of a map multiples of the rate.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin.coarse_logits(torch.empty(1, channels, size, size, device="meta"))
    return int(counter.get_total_flops()) // 2


def table(points: Sequence[SweepPoint]) -> str:
    """Format a sweep as a Markdown table with a row for each point."""
    widths = list(points[0].evaluation.trimap)
    head = [_spaced(points[0].parameter), "mean IoU %", *(f"within {width} px" for width in widths), "pixel accuracy %"]
    rows = [[*head, "s per image", "peak memory, MB", f"10⁹ multiply-adds at {COUNTED_AT}², one view"]]
    for point in points:
        metrics, bands = point.evaluation.metrics, point.evaluation.trimap
        rows.append(
            [
                str(point.value),
                percent(metrics.mean_iou),
                *(percent(bands[width].metrics().mean_iou) for width in widths),
                percent(metrics.pixel_accuracy),
                f"{point.seconds:.3f}",
                "–" if point.memory is None else f"{point.memory / 1e6:.0f}",
                f"{point.multiply_adds / 1e9:.2f}",
            ]
        )
    return aligned(rows)


def plot(points: Sequence[SweepPoint]) -> bytes:
    """Plot mean IoU over time and over memory; the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = {"seconds per image": [p.seconds for p in points]}
    if known := [p.memory / 1e6 for p in points if p.memory is not None]:
        panels["peak memory, MB"] = known
    drawn: dict[Axes, list[float]] = {}
    accuracy = [100 * p.evaluation.metrics.mean_iou for p in points]
    for axes, (name, costs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.plot(costs, accuracy, marker="o", linestyle="-" if points[0].parameter == "output_stride" else "")
        axes.set(xlabel=name, ylabel="mean IoU, %")
        axes.set(xlim=_limits(costs, MIN_AXIS_RANGE * max(costs)), ylim=_limits(accuracy, MIN_ACCURACY_RANGE))
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(useOffset=False)
        drawn[axes] = costs
    first = points[0].evaluation
    figure.suptitle(f"{first.model} on {first.data}, {first.images:,} images")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call] # labels are placed once the axes are
    figure.set_layout_engine("none")
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    for axes, costs in drawn.items():
        _label(axes, renderer, [f"{_spaced(p.parameter)} {p.value}" for p in points], costs, accuracy)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _label(
    axes: Axes, renderer: RendererBase, labels: Sequence[str], across: Sequence[float], up: Sequence[float]
) -> list[Bbox]:
    """Write a label beside each point, where it covers neither another label nor a point nor a line between them.

    Returns:
        Where the labels are.
    """
    from matplotlib.path import Path as Line
    from matplotlib.transforms import Bbox

    frame = axes.get_window_extent(renderer)
    places = axes.transData.transform(list(zip(across, up, strict=True)))
    points = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in places]
    lines = [
        Line(line.get_transform().transform(line.get_xydata())) for line in axes.lines if line.get_linestyle() != "None"
    ]
    boxes: list[Bbox] = []
    for text, x, y in zip(labels, across, up, strict=True):
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", ha="center", va="center")
        for offset in LABEL_OFFSETS:
            label.set_position(offset)
            box = label.get_window_extent(renderer)
            covers = any(box.overlaps(other) for other in (*points, *boxes))
            crosses = any(line.intersects_bbox(box, filled=False) for line in lines)
            if not (covers or crosses) and frame.contains(*box.min) and frame.contains(*box.max):
                break
        boxes.append(box)
    return boxes


def _limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits of an axis of a least range, on which nearly equal values look nearly equal."""
    middle, spread = (max(values) + min(values)) / 2, max(values) - min(values)
    half = max(spread, least) * (0.5 + MARGIN)
    return middle - half, middle + half


def _spaced(parameter: str) -> str:
    return parameter.replace("_", " ")


@dataclass(frozen=True)
class _TimedInference(Inference):
    """An inference that records how long each image takes."""

    seconds: list[float] = field(default_factory=list)

    def label_heads(self, model: Network, image: Tensor, heads: Sequence[str] = ()) -> dict[str, Tensor]:
        if not self.seconds:
            super().label_heads(model, image, heads)  # warm-up, so that compilation does not count as image time
        begin = time.perf_counter()
        labels = super().label_heads(model, image, heads)
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        self.seconds.append(time.perf_counter() - begin)
        return labels


_PROCESS = Path("/proc/self")  # Linux reports a process's peak memory here, and resets it on request


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (_PROCESS / "clear_refs").exists():
        give_back_freed_memory()
        (_PROCESS / "clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not (_PROCESS / "status").exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", (_PROCESS / "status").read_text())
    return 1024 * int(found[1]) if found else None
