"""The scripts of examples/, run as a reader would, with few steps and small images."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
def test_the_examples_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "scribbles_to_masks.py", "--out", str(tmp_path / "scribbles.png"), "--width", "128")
    with Image.open(tmp_path / "scribbles.png") as sheet:
        assert sheet.size == (256, 150)
    run(monkeypatch, "train_on_twenty_images.py", "--out", str(tmp_path / "twenty"), "--steps", "1")
    with Image.open(tmp_path / "twenty" / "mask.png") as mask:
        assert mask.size == (160, 160)
    run(monkeypatch, "four_papers_one_backbone.py", "--steps", "1", "--batch", "2", "--side", "96")
    assert capsys.readouterr().out.count("%\n") == 4
