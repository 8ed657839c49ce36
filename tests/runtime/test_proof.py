"""Which runtimes are trusted on this machine."""

import os
from pathlib import Path

import numpy as np
import pytest

from atrous.runtime import proof, trial
from atrous.runtime.examples import SHAPES, example_batches
from atrous.runtime.proof import Reference, Verdict, fastest, judge, verdicts
from atrous.runtime.trial import TrialError, run_in_child
from tests.graphs import MakeFile

pytest.importorskip("onnxruntime", reason="needs atrous[export]")
pytest.importorskip("openvino", reason="needs atrous[export]")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATROUS_CACHE", str(tmp_path / "cache"))


def red(labels: int) -> Reference:
    batch = np.zeros((1, 8, 9, 3), np.uint8)
    batch[..., 0] = 200
    return Reference("torch", [batch], [np.full((1, 8, 9), labels, np.uint8)], [9.0])


def test_a_child_gives_what_the_model_gives(make_onnx: MakeFile) -> None:
    batches = example_batches(3)
    found = run_in_child(make_onnx(probabilities=True), "onnxruntime", batches, repeats=1)
    assert [labels.shape for labels in found.labels] == list(SHAPES)
    for batch, labels, probabilities in zip(batches, found.labels, found.probabilities, strict=True):
        np.testing.assert_array_equal(labels, batch.argmax(-1))
        np.testing.assert_array_equal(labels, probabilities.argmax(1))
    assert len(found.seconds) == 3
    assert found.start > max(found.seconds) > 0


def test_a_runtime_that_kills_its_process_is_not_trusted(
    make_onnx: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(trial, "_MODULE", "killer")
    with pytest.raises(TrialError, match="openvino was killed by SIGILL"):
        run_in_child(make_onnx(), "openvino")
    verdict = judge(make_onnx(), "openvino", red(0))
    assert not verdict.passed
    assert verdict.reason == "was killed by SIGILL"


def test_a_runtime_that_fails_or_hangs_is_not_trusted(make_onnx: MakeFile) -> None:
    with pytest.raises(TrialError, match=r"exit code 1: .*failed on images"):
        run_in_child(make_onnx(broken_at=8), "onnxruntime")
    with pytest.raises(TrialError, match=r"took longer than 0.01 s"):
        run_in_child(make_onnx(), "onnxruntime", timeout=0.01)


def test_a_runtime_of_other_labels_is_not_trusted(make_onnx: MakeFile) -> None:
    assert judge(make_onnx(), "onnxruntime", red(0)).passed
    wrong = judge(make_onnx(), "onnxruntime", red(1))
    assert (wrong.passed, wrong.reason) == (False, "only 0.00% of its labels are those of torch")


def test_verdicts_are_remembered_by_file_machine_and_versions(
    make_onnx: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, told = make_onnx(), []
    first = verdicts(file, told=told.append)
    assert {name: verdict.passed for name, verdict in first.items()} == {"onnxruntime": True, "openvino": True}
    assert told == ["trying onnxruntime and openvino on this machine, once for this model"]

    def nothing(*args: object, **options: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr(proof, "run_in_child", nothing)
    assert verdicts(file, told=told.append) == first
    assert len(told) == 1
    monkeypatch.setattr(proof, "processor", lambda: "another machine")
    with pytest.raises(AssertionError, match="started"):
        verdicts(file)


def test_the_reference_is_one_of_the_candidates(make_onnx: MakeFile, tmp_path: Path) -> None:
    file = make_onnx()
    found = verdicts(file, lambda: red(2))
    assert list(found) == ["torch", "onnxruntime", "openvino"]
    assert found["torch"].seconds == (9.0,)
    assert [verdict.passed for verdict in found.values()] == [True, False, False]
    (stored,) = (tmp_path / "cache" / "verdicts").iterdir()
    stored.write_text("[")  # damaged, it is forgotten
    found = verdicts(file, lambda: red(0))
    assert all(verdict.passed for verdict in found.values())


def test_the_fastest_of_the_trusted_is_picked() -> None:
    slow, quick, killed = Verdict(True, "", 1, (1, 1)), Verdict(True, "", 1, (0.5, 1)), Verdict(False, "", 0)
    assert fastest({"torch": slow, "onnxruntime": quick, "openvino": killed}) == "onnxruntime"
    assert fastest({"openvino": killed}) is None
