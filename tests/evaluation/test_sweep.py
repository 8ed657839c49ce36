"""One checkpoint at several output strides."""

import copy
import io
import json
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.path import Path as Line
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.dataset import Dataset
from atrous.data.opening import open_dataset
from atrous.evaluation import sweep as sweeping
from atrous.evaluation.evaluate import evaluate
from atrous.evaluation.sweep import multiply_adds, sweep, table
from atrous.inference.fast import keep_freed_memory
from atrous.inference.test_time import Inference
from atrous.models import SegmentationModel, create_model


@pytest.fixture
def model() -> SegmentationModel:
    return create_model("deeplabv3plus", backbone="test_efficientnet", num_classes=2, channels=16).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for kind, high in (("images", 256), ("masks", 2)):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for name, size in (("a", (40, 50)), ("b", (33, 65)), ("c", (20, 20))):
            shape = (*size, 3) if kind == "images" else size
            image = random.integers(0, high, shape).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / kind / f"{name}.png")
    (tmp_path / "data" / "labels.toml").write_text('names = ["ground", "thing"]\n')
    return tmp_path / "data"


@pytest.fixture
def data(folder: Path) -> Dataset:
    return open_dataset(f"folder:{folder}", "all")


def test_each_point_is_an_evaluation_at_its_stride(model: SegmentationModel, data: Dataset) -> None:
    twin = copy.deepcopy(model)
    points = sweep(model, data, "output_stride", (8, 32, 16), trimap=(3,), inference=Inference(flip=True))
    assert [point.value for point in points] == [32, 16, 8]
    assert model.output_stride == 16
    for point in points:
        twin.output_stride = point.value
        alone = evaluate(twin, data, trimap=(3,), inference=Inference(flip=True))
        assert (point.evaluation.confusion.matrix == alone.confusion.matrix).all()
        assert point.seconds > 0
        assert point.multiply_adds == multiply_adds(twin)
    assert points[0].multiply_adds < points[1].multiply_adds < points[2].multiply_adds
    lines = table(points).splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["32", "16", "8"]
    assert "within 3 px" in lines[0]


def test_an_unsupported_stride_leaves_the_model_as_it_was(model: SegmentationModel, data: Dataset) -> None:
    done = []
    with pytest.raises(ValueError, match="one of 4, 8, 16, 32"):
        sweep(model, data, "output_stride", (16, 7), progress=lambda *count: done.append(count))
    assert model.output_stride == 16
    assert not done


def test_merges_of_one_network_are_compared(
    model: SegmentationModel, data: Dataset, folder: Path, tmp_path: Path
) -> None:
    several = create_model(
        "attention_to_scale", backbone="test_efficientnet", num_classes=2, scales=(1, 0.5), base_options={"width": 16}
    ).eval()
    points = sweep(several, data, "merge", ("max", "attention", "average"))
    assert several.merge == "attention"
    assert [point.to_dict()["merge"] for point in points] == ["max", "attention", "average"]
    assert points[0].multiply_adds < points[1].multiply_adds  # maximum has no use for the attention head
    for point in points:
        several.merge = point.value
        assert (point.evaluation.confusion.matrix == evaluate(several, data).confusion.matrix).all()
    with pytest.raises(ValueError, match="a sweep needs at least one merge"):
        sweep(several, data, "merge", [])
    with pytest.raises(ValueError, match="there is nothing to merge: deeplabv3plus runs once per image"):
        sweep(model, data, "merge", ("max", "average"))
    several.save(tmp_path / "several")
    where = ["--model", str(tmp_path / "several"), "--data", f"folder:{folder}", "--split", "all"]
    result = CliRunner().invoke(app, ["sweep", *where, "--merge", "attention,average,max"])
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.stdout.splitlines()[4:7]] == ["attention", "average", "max"]
    assert CliRunner().invoke(app, ["evaluate", *where, "--merge", "max"]).exit_code == 0
    for options, says in (
        (["--merge", "max,mean"], "merge is one of attention, average, max"),
        (["--merge", "max,average", "--output-stride", "16", "--plot", "x.jpg"], "a plot is a PNG"),
        (["--merge", "max,"], "merge is one of attention, average, max"),
        (["--merge", "max,average", "--output-stride", "8,16"], "a sweep varies one of"),
    ):
        result = CliRunner().invoke(app, ["sweep", *where, *options])
        assert (result.exit_code, says in " ".join(result.output.split())) == (2, True), result.output


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_labels_lie_beside_the_line_between_the_points(
    model: SegmentationModel, data: Dataset, drawn: list[Figure]
) -> None:
    (point,) = sweep(model, data, "output_stride", (16,))
    costs = {32: (0.10, 0.2, 210_000_000), 16: (0.12, 0.6, 250_000_000), 8: (0.33, 0.7, 600_000_000)}
    points = []
    for stride, (seconds, accuracy, memory) in costs.items():
        evaluation = Mock(model="m", data="d", images=3, metrics=Mock(mean_iou=accuracy))
        points.append(replace(point, value=stride, seconds=seconds, memory=memory, evaluation=evaluation))
    sweeping.plot(points)
    renderer = drawn[0].canvas.get_renderer()  # the saved picture has another resolution
    for axes in drawn[0].axes:
        (line,) = axes.lines
        joined = Line(line.get_transform().transform(line.get_xydata()))
        labels = [text.get_window_extent(renderer) for text in axes.texts]
        assert len(labels) == 3
        assert not any(joined.intersects_bbox(label, filled=False) for label in labels)
        assert all(axes.get_window_extent().contains(*corner) for label in labels for corner in label.corners())


def test_nearly_equal_costs_are_drawn_nearly_equal(
    model: SegmentationModel, data: Dataset, drawn: list[Figure]
) -> None:
    (point,) = sweep(model, data, "output_stride", (16,))
    costs = {"attention": (0.5012, 812_340_224), "average": (0.5003, 812_343_000), "max": (0.4998, 812_347_520)}
    points = [
        replace(point, parameter="merge", value=merge, seconds=seconds, memory=memory)
        for merge, (seconds, memory) in costs.items()
    ]
    assert Image.open(io.BytesIO(sweeping.plot(points))).width > 600
    for axes in drawn[0].axes:
        assert axes.xaxis.get_offset_text().get_text() == ""
        places = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(a.x1 + 5 < b.x0 for a, b in pairwise(places))
        low, high = axes.get_xlim()
        (line,) = axes.lines
        assert np.ptp(line.get_xdata()) < 0.05 * (high - low)
        low, high = axes.get_ylim()
        assert high - low >= sweeping.MIN_ACCURACY_RANGE
        labels = [text.get_window_extent() for text in axes.texts]
        assert len(labels) == 3
        assert not any(a.overlaps(b) for a, b in combinations(labels, 2))


def test_multiply_adds_are_those_of_a_convolution(model: SegmentationModel) -> None:
    fine, coarse = (multiply_adds(model, size=size) for size in (129, 65))
    assert fine / coarse == pytest.approx(4, rel=0.1)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("freed", [1, 50_000_000])
def test_memory_is_that_of_one_point(freed: int, tmp_path: Path) -> None:
    keep_freed_memory()  # as a prediction before it does
    torch.ones(freed)
    if sweeping._peak_memory(torch.device("cpu")) is None:
        pytest.skip("this system does not report a process's peak memory")
    peaks = []
    for elements in (1, 50_000_000, 1):
        sweeping._reset_peak_memory(torch.device("cpu"))
        torch.ones(elements)
        peaks.append(sweeping._peak_memory(torch.device("cpu")))
    assert peaks[1] - peaks[0] > 150e6
    assert peaks[1] - peaks[2] > 150e6


def test_the_command_prints_writes_and_draws(model: SegmentationModel, folder: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    where = ["--model", str(tmp_path / "model"), "--data", f"folder:{folder}", "--split", "all"]
    files = ["--json", str(tmp_path / "sweep.json"), "--plot", str(tmp_path / "sweep.png")]
    result = CliRunner().invoke(app, ["sweep", *where, "--output-stride", "16,32", *files])
    assert result.exit_code == 0, result.output
    assert "10⁹ multiply-adds at 513²" in result.stdout
    points = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert [point["output_stride"] for point in points] == [32, 16]
    assert all(0 <= point["mean_iou"] <= 1 and point["seconds_per_image"] > 0 for point in points)
    with Image.open(tmp_path / "sweep.png") as image:
        assert image.width > 600
    result = CliRunner().invoke(app, ["sweep", *where, "--output-stride", "16", *files])
    assert (result.exit_code, "--output-stride 8,16,32" in result.output) == (2, True)
    for strides in ("8;16", ",", "8,", ""):
        result = CliRunner().invoke(app, ["sweep", *where, "--output-stride", strides])
        assert (result.exit_code, "--output-stride takes integers" in result.output) == (2, True)


def test_ways_of_merging_test_time_views_are_compared(model: SegmentationModel, data: Dataset) -> None:
    points = sweep(model, data, "merge", ("probabilities", "max"), inference=Inference(flip=True))
    for point, merge in zip(points, ("probabilities", "max"), strict=True):
        alone = evaluate(model, data, inference=Inference(flip=True, merge=merge))
        assert (point.evaluation.confusion.matrix == alone.confusion.matrix).all()
