"""Exported models: labels, probabilities, and what is refused."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.runtime.engines import ExportedModelError
from atrous.runtime.exported import open_exported
from tests.graphs import CARD, MakeFile

pytest.importorskip("onnxruntime", reason="needs atrous[export]")
pytest.importorskip("openvino", reason="needs atrous[export]")
RUNTIMES = ("onnxruntime", "openvino")


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 7, 3)])
def test_each_runtime_labels_batches_of_any_size(make_onnx: MakeFile, runtime: str, shape: tuple[int, ...]) -> None:
    model = open_exported(make_onnx(probabilities=True), runtime)  # type: ignore[arg-type]
    batch = images(*shape)
    labels, probabilities = model.labels_and_probabilities(batch)
    np.testing.assert_array_equal(labels, batch.argmax(-1))
    np.testing.assert_array_equal(model.labels(batch), labels)
    assert (labels.dtype, probabilities.dtype) == (np.uint8, np.float32)
    assert probabilities.shape == (shape[0], 3, *shape[1:3])
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_an_openvino_file_is_opened_with_its_card(make_xml: MakeFile) -> None:
    model = open_exported(make_xml())
    assert (model.runtime, model.card, model.label_set.names) == ("openvino", CARD, ("red", "green", "blue"))
    assert (model.name, model.output_stride, model.in_channels, model.num_classes) == ("by_channel", 1, 3, 3)
    np.testing.assert_array_equal(model.labels(images(1, 4, 6, 3)), images(1, 4, 6, 3).argmax(-1))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_an_exported_model(make_onnx: MakeFile, runtime: str) -> None:
    model = open_exported(make_onnx(), runtime)  # type: ignore[arg-type]
    batches = [np.full((1, 40 + i, 50, 3), 9, np.uint8) for i in range(24)]
    for i, batch in enumerate(batches):
        batch[..., i % 3] = 200
    with ThreadPoolExecutor(4) as pool:
        for i, labels in enumerate(pool.map(model.labels, batches)):
            assert labels.shape == (1, 40 + i, 50)
            assert (labels == i % 3).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"card": None}, r"was not exported by atrous .*`atrous export`"),
        ({"card": "{"}, "metadata 'atrous' is damaged"),
        ({"card": "[]"}, "is not a JSON object"),
        ({"card": {"library": "atrous"}}, "its classes can't be read"),
    ],
)
def test_a_file_without_our_card_is_refused(make_onnx: MakeFile, options: dict[str, object], words: str) -> None:
    file = make_onnx(**options)
    with pytest.raises(ExportedModelError, match=f"{file}.*{words}"):
        open_exported(file)


def test_damaged_missing_and_foreign_files_are_refused(tmp_path: Path, make_onnx: MakeFile) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    (tmp_path / "bad.xml").write_bytes(b"<net")
    for name, words in {
        "bad.onnx": "can't be opened by onnxruntime",
        "bad.xml": "can't be opened by openvino",
        "missing.onnx": "no such file",
        "model.pth": "ends in .onnx or .xml",
    }.items():
        with pytest.raises(ExportedModelError, match=words):
            open_exported(tmp_path / name)
    with pytest.raises(ExportedModelError, match="run by openvino, not by onnxruntime"):
        open_exported(tmp_path / "bad.xml", "onnxruntime")


def test_other_arrays_are_refused(make_onnx: MakeFile) -> None:
    model = open_exported(make_onnx())
    for wrong in (images(4, 4, 3), images(1, 4, 4, 4), images(1, 4, 4, 3).astype(np.float32), images(0, 4, 4, 3)):
        with pytest.raises(InputError, match=r"uint8 \(N, H, W, 3\)"):
            model.labels(wrong)
    with pytest.raises(ExportedModelError, match="--probabilities"):
        model.labels_and_probabilities(images(1, 4, 4, 3))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_a_runtime_fails_on_is_an_error_with_the_size(make_onnx: MakeFile, runtime: str) -> None:
    model = open_exported(make_onnx(broken_at=8), runtime)  # type: ignore[arg-type]
    with pytest.raises(ExportedModelError, match=rf"{runtime} failed on images \(1, 4, 4, 3\)"):
        model.labels(images(1, 4, 4, 3))


def test_opening_and_running_imports_neither_torch_nor_timm(make_onnx: MakeFile) -> None:
    code = (
        "import sys, numpy as np; from atrous.runtime.exported import open_exported; "
        f"print(open_exported({str(make_onnx())!r}).labels(np.zeros((1, 4, 5, 3), np.uint8)).shape, "
        "[m for m in ('torch', 'timm', 'torchvision', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 4, 5) []"
