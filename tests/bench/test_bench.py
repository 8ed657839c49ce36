"""`atrous bench`: what is measured, what is proven, and what crashes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import atrous
from atrous.bench import run
from atrous.bench.machine import Machine
from atrous.bench.opened import OPENER
from atrous.bench.run import Bench, Setting, bench, describe_bottleneck, network_shares
from atrous.bench.stages import Split
from atrous.cli import app
from atrous.errors import InputError
from atrous.runtime.trial import Trial, TrialError, run_in_child

SPLIT = Split({"decode": 0.01, "network": 0.08, "upsample": 0.01, "crf": 9.0}, 40_000, 800, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "m"
    atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=2).save(folder)
    return str(folder)


def pretend(_: str, runtime: str, batches: Sequence[np.ndarray], *, options: dict[str, Any], **__: Any) -> Trial:
    """Every runtime works but for one: OpenVINO gives other labels, and bfloat16 crashes."""
    if options.get("precision") == "bfloat16":
        raise TrialError(f"{runtime} was killed by SIGILL")
    labels = [np.full(batch.shape[:3], runtime == "openvino", np.uint8) for batch in batches]
    seconds = {"torch": 0.3, "onnxruntime": 0.2, "openvino": 0.1}[runtime]
    return Trial([], labels, [], [seconds] * len(batches), 1.0, {"throughput": 5.0, "memory": 1e8})


@pytest.fixture(scope="module")
def found(model: str) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_in_child", pretend)
        patch.setattr(run, "exported_copy", lambda *_, **__: Path("model.onnx"))
        patch.setattr(run, "is_installed", lambda _: True)
        patch.setattr(run, "measure_machine", lambda _: Machine(1e9, 1e9))
        patch.setattr(run, "_TRIALS", 1)
        yield bench(model, size=(33, 41))


def test_the_fastest_setting_is_one_that_ran_and_gave_the_references_labels(found: Bench) -> None:
    proven = {(setting.runtime, setting.precision): setting.proven for setting in found.settings}
    assert proven[("torch", "float32")]
    assert proven[("onnxruntime", "float32")]
    assert not proven[("torch", "bfloat16")]
    assert not proven[("openvino", "float32")]
    assert found.fastest
    assert found.fastest.runtime == "onnxruntime"
    assert set(found.split.seconds) == {"decode", "preprocess", "network", "upsample", "encode", "crf"}
    assert min(found.split.seconds.values()) > 0
    assert found.split.multiply_adds > 10_000
    assert found.split.bytes > 4 * found.split.layers > 0


def test_results_are_json(found: Bench) -> None:
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["fastest"] == {"runtime": "onnxruntime", "precision": "float32"}
    assert stored["settings"][0]["measured"]["memory"] == 10**8
    assert "hardware" in stored["origin"]
    assert stored["network"]["share_of_matrix_rate"] > 0


def test_the_command_prints_a_line_for_each_setting(
    found: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "bench", lambda *_, **__: found)
    file = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "--model", found.model, "--size", "33x41", "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "was killed by SIGILL" in result.stdout
    assert "0.00%: not proven" in result.stdout
    assert "fastest proven setting: onnxruntime float32" in result.stdout
    assert "bottleneck: " in result.stdout
    assert json.loads(file.read_text())["size"] == [33, 41]
    result = CliRunner().invoke(app, ["bench", "--model", found.model, "--size", "big"])
    assert (result.exit_code, "height and width in pixels" in result.output) == (2, True)


def test_a_model_that_cannot_be_exported_is_measured_in_torch_alone(
    found: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("a size is fixed")

    monkeypatch.setattr(run, "run_in_child", pretend)
    monkeypatch.setattr(run, "exported_copy", refuse)
    monkeypatch.setattr(run, "measure_machine", lambda _: Machine(1e9, 1e9))
    monkeypatch.setattr(run, "measure_split", lambda *_: SPLIT)
    again = bench(found.model, size=(33, 41))
    assert {setting.runtime for setting in again.settings} == {"torch"}
    assert again.notes == ("not exported: a size is fixed",)


def test_an_exported_file_is_measured_in_the_runtimes_that_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_in_child", pretend)
    monkeypatch.setattr(run, "is_installed", lambda _: True)
    monkeypatch.setattr(run, "measure_machine", lambda _: Machine(1e9, 1e9))
    file = str(tmp_path / "model.onnx")
    found = bench(file, size=(33, 41))
    assert [setting.runtime for setting in found.settings] == ["onnxruntime", "openvino"]
    assert [setting.proven for setting in found.settings] == [True, False]
    assert (found.split, json.loads(json.dumps(found.to_dict()))["split"]) == (None, None)
    result = CliRunner().invoke(app, ["bench", "--model", file, "--size", "33x41"])
    assert result.exit_code == 0, result.output
    assert "fastest proven setting: onnxruntime as exported" in result.stdout


def test_the_bottleneck_is_named_with_what_the_network_waits_for() -> None:
    assert network_shares(SPLIT, Machine(1e6, 1e5)) == (0.5, 0.1)
    assert describe_bottleneck(SPLIT, Machine(1e6, 1e5)).startswith("network takes 80% of an image's time")
    assert describe_bottleneck(SPLIT, Machine(1e6, 1e5)).endswith("multiply-adds bound")
    assert describe_bottleneck(SPLIT, Machine(1e7, 1.25e4)).endswith("memory bound")
    assert "its 5 layers wait for neither alone" in describe_bottleneck(SPLIT, Machine(1e7, 1e5))
    slow = Split(SPLIT.seconds | {"decode": 0.5}, 1, 1, 1)
    assert describe_bottleneck(slow, Machine(1, 1)) == "decode takes 85% of an image's time"


def test_int8_is_proven_by_its_mean_iou(found: Bench) -> None:
    cost = found.settings[0].measured
    assert Setting("onnxruntime", "int8", cost, agreement=0.9, lost=0.4).proven
    assert not Setting("onnxruntime", "int8", cost, agreement=1.0, lost=0.6).proven
    assert not Setting("onnxruntime", "int8", cost, agreement=1.0).proven


@pytest.mark.slow
def test_a_setting_is_measured_in_a_process_of_its_own(model: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 33, 41, 3), np.uint8)
    options = {"precision": "float32", "output_stride": 8}
    trial = run_in_child(model, "torch", list(images), opener=OPENER, options=options, repeats=2)
    assert trial.start > max(trial.seconds) > 0
    assert trial.facts["throughput"] > 0
    assert trial.facts["memory"] > 10**7
    network = atrous.load(model)
    expected = [atrous.predict(network, image[0], precision="float32", output_stride=8).labels for image in images]
    assert np.array_equal(np.concatenate(trial.labels), np.stack(expected))
