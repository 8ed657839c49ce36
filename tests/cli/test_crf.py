"""crf refine and crf tune."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Run = Callable[..., Result]
MakeImage = Callable[[Path], Path]


def test_crf_refine_takes_predictions_of_any_program(tmp_path: Path, run: Run, red_image: MakeImage) -> None:
    image = red_image(tmp_path / "image.png")
    (tmp_path / "theirs").mkdir()
    np.save(tmp_path / "theirs" / "image.npy", np.full((2, 6, 8), 0.5, np.float32) + np.float32([[[0.2]], [[-0.2]]]))
    (tmp_path / "names.txt").write_text("ground\nthing\n")
    options = (
        "--predictions",
        tmp_path / "theirs",
        "--classes",
        tmp_path / "names.txt",
        "--published",
        "deeplab_largefov",
    )
    result = run("crf", "refine", image, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "ground 100%" in result.stdout
    np.save(tmp_path / "theirs" / "image.npy", np.zeros((2, 8, 6), np.float32))
    result = run("crf", "refine", image, "--out", tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "did you swap height and width?" in result.stderr


def test_crf_refine_takes_a_published_set_or_numbers(tmp_path: Path, run: Run, red_image: MakeImage) -> None:
    image = red_image(tmp_path / "image.png")
    options = ("--predictions", tmp_path, "--published", "deeplab_largefov", "--sxy", 5)
    result = run("crf", "refine", image, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert "leave out sxy" in result.stderr


def test_crf_tune_reports_whether_it_helps(
    dataset: Path, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr("atrous.crf.search.COARSE", {"weight": (0.0,), "sxy": (5.0,), "srgb": (5.0,)})
    monkeypatch.setattr("atrous.crf.search.FINER", ())
    file = tmp_path / "tuned.json"
    result = run("crf", "tune", "--model", "fake", "--data", f"folder:{dataset}", "--split", "train", "--json", file)
    assert result.exit_code == 0, result.output
    assert "held out, with CRF" in result.stdout
    assert json.loads(file.read_text())["settings"]["weight"] == 0
    out = tmp_path / "tuned"
    options = ("--model", "fake", "--data", f"folder:{dataset}", "--split", "train", "--out", out)
    result = run("crf", "tune", *options)
    assert f"{out} was not written" in result.stdout
    assert not out.exists()
    out.mkdir()
    result = run("crf", "tune", *options)
    assert result.exit_code == 2
    assert "a new folder" in result.stderr
