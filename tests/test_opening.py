"""Which runtime a model is opened in."""

from pathlib import Path

import numpy as np
import pytest

import atrous
from atrous import opening
from atrous.errors import InputError
from atrous.models.base import SegmentationModel
from atrous.opening import open_model
from atrous.runtime.engines import ExportedModelError
from atrous.runtime.proof import Verdict
from tests.graphs import MakeFile

pytest.importorskip("onnxruntime", reason="needs atrous[export]")
pytest.importorskip("openvino", reason="needs atrous[export]")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATROUS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=3, pretrained=False)
    return model.save(tmp_path / "small")


def test_an_exported_file_is_opened_in_what_it_is_for_or_what_is_asked_for(make_onnx: MakeFile) -> None:
    file = make_onnx()
    assert atrous.load(file).runtime == "onnxruntime"
    assert atrous.load(str(file), runtime="openvino").runtime == "openvino"
    with pytest.raises(InputError, match="which torch does not run"):
        atrous.load(file, runtime="torch")
    with pytest.raises(InputError, match="runtime is one of auto, torch, onnxruntime, openvino, not 'tensorrt'"):
        atrous.load(file, runtime="tensorrt")  # type: ignore[arg-type]
    with pytest.raises(ExportedModelError, match="no such file"):
        atrous.load(file.with_name("missing.onnx"), runtime="auto")


def test_auto_picks_the_fastest_that_is_trusted_and_says_why(
    make_onnx: MakeFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, told = make_onnx(), []
    found = {
        "onnxruntime": Verdict(True, "it is the reference", 1.0, (0.5, 0.5)),
        "openvino": Verdict(False, "was killed by SIGILL"),
    }
    monkeypatch.setattr(opening, "verdicts", lambda *_, **__: found)
    assert open_model(file, "auto", told=told.append).runtime == "onnxruntime"  # type: ignore[union-attr]
    found["openvino"] = Verdict(True, "100.00% of its labels are those of onnxruntime", 1.0, (0.2, 0.3))
    assert open_model(file, "auto", told=told.append).runtime == "openvino"  # type: ignore[union-attr]
    assert told == [
        "runtime: onnxruntime (it is the reference; openvino: was killed by SIGILL)",
        "runtime: openvino (100.00% of its labels are those of onnxruntime; onnxruntime takes 2.0 times as long)",
    ]
    found.clear()
    with pytest.raises(InputError, match="no runtime gives its labels on this machine"):
        open_model(file, "auto")


@pytest.mark.slow
def test_a_folder_is_exported_once_for_another_runtime(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    image = np.random.default_rng(0).integers(0, 256, (40, 57, 3), np.uint8)
    right = atrous.predict(atrous.load(folder), image, precision="float32").labels
    for _ in range(2):
        model = open_model(folder, "onnxruntime", told=told.append)
        assert (atrous.predict(model, image).labels == right).mean() > 0.99
    assert len(told) == 1
    assert told[0].startswith(f"exporting {folder}, once, to {tmp_path / 'cache'}")


def test_auto_is_torch_where_no_other_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(opening, "RUNTIMES", ())
    assert isinstance(open_model(folder, "auto", told=told.append), SegmentationModel)
    assert told == ["runtime: torch (no other is installed: pip install 'atrous[export]')"]
