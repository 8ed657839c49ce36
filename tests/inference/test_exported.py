"""Predicting with exported models through the public face, and what an exported file can't do."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.errors import InputError
from atrous.inference.batch import predict_files
from atrous.inference.results import OutputOptions
from atrous.runtime.exported import ExportedModel
from tests.graphs import MakeFile

pytest.importorskip("onnxruntime", reason="needs atrous[export]")

HALVES = np.zeros((6, 10, 3), np.uint8)
HALVES[:, :4, 0] = 200
HALVES[:, 4:, 2] = 200
EXPECTED = np.repeat(np.array([[0] * 4 + [2] * 6], np.uint8), 6, axis=0)


@pytest.fixture
def plain(make_onnx: MakeFile) -> ExportedModel:
    return atrous.load(make_onnx())


@pytest.fixture
def probable(make_onnx: MakeFile) -> ExportedModel:
    return atrous.load(make_onnx(probabilities=True))


def test_predict_takes_an_exported_model(plain: ExportedModel) -> None:
    buffer = io.BytesIO()
    Image.fromarray(HALVES).save(buffer, "PNG")
    for result in (
        atrous.predict(plain, HALVES),
        *atrous.predict(plain, [HALVES, Image.fromarray(HALVES), buffer.getvalue()], output_stride=1, device="cpu"),
    ):
        np.testing.assert_array_equal(result.labels, EXPECTED)
        assert repr(result) == "Segmentation(6×10: blue 60%, red 40%)"


def test_probabilities_are_at_the_size_of_the_image(probable: ExportedModel) -> None:
    result = atrous.predict(probable, HALVES, keep_probabilities=True)
    assert result.probabilities().shape == result.probabilities(full_size=True).shape == (3, 6, 10)
    np.testing.assert_array_equal(result.probabilities().argmax(0), EXPECTED)


def test_a_crf_refines_what_has_probabilities(probable: ExportedModel) -> None:
    assert atrous.predict(probable, HALVES, crf=True).labels.shape == (6, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": (0.5, 1.0)}, "no logits to merge: leave out scales and flip"),
        ({"flip": True}, "no logits to merge"),
        ({"output_stride": 8}, "was exported at output stride 1, not 8: export it again"),
        ({"device": "cuda"}, "runs on the CPU, not on 'cuda'"),
        ({"precision": "bfloat16"}, "can't be bfloat16"),
        ({"crf": True}, "a CRF needs class probabilities: export the model again with --probabilities"),
        ({"keep_probabilities": True}, "export the model again with --probabilities"),
    ],
)
def test_what_the_file_cannot_do_is_an_error_in_words(plain: ExportedModel, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=f"{plain.file}.*{words}"):
        atrous.predict(plain, HALVES, **options)


def test_files_are_labelled_or_refused_before_the_first(plain: ExportedModel, tmp_path: Path) -> None:
    Image.fromarray(HALVES).save(tmp_path / "x.png")
    report = predict_files(plain, [tmp_path / "x.png"], tmp_path / "out")
    with Image.open(report.done[0].mask) as mask:
        np.testing.assert_array_equal(np.array(mask), EXPECTED)
    for options in (OutputOptions(probabilities=True), OutputOptions(attention_maps=True)):
        with pytest.raises(InputError, match=r"--probabilities|attention maps"):
            predict_files(plain, [tmp_path / "x.png"], tmp_path / "out", outputs=options)


def test_evaluate_takes_an_exported_model(plain: ExportedModel) -> None:
    wrong = EXPECTED.copy()
    wrong[:, 0] = 1
    data = atrous.wrap([(HALVES, wrong)], plain.label_set)
    found = atrous.evaluate(plain, data)
    assert found.metrics.pixel_accuracy == pytest.approx(0.9)
    assert (found.model, found.device) == ("by_channel", "cpu (onnxruntime)")
    with pytest.raises(InputError, match="details are found from logits"):
        atrous.evaluate(plain, data, details=True)


def test_torch_is_not_imported_from_the_command_line_to_the_mask(make_onnx: MakeFile, tmp_path: Path) -> None:
    Image.fromarray(HALVES).save(tmp_path / "x.png")
    arguments = ["predict", str(tmp_path / "x.png"), "--model", str(make_onnx()), "--out", str(tmp_path / "out")]
    code = (
        f"import sys; sys.argv = ['atrous', *{arguments!r}]\n"
        "from atrous.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'timm', 'torchvision', 'numba', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "blue 60%, red 40%" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out/x.png").is_file()
