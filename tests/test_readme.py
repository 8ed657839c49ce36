"""The README's commands and code, run as they stand; what they would need minutes for is made small by settings."""

import importlib.util
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from atrous.cli import app
from docs.generate import PAGES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
assert spec
assert spec.loader
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
# A tiny random network and crops, so that the commands of five minutes take seconds.
SMALL = [
    "model.backbone=test_efficientnet",
    "model.pretrained=false",
    "model.options.channels=16",
    "augment.crop=65",
    "training.epochs=1",
    "training.batch_size=2",
    "training.precision=float32",
    "data.workers=0",
]


def block(marker: str) -> str:
    """The first fenced block after a line that holds the marker."""
    found = re.search(rf"{re.escape(marker)}.*?```\w*\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no fenced block after {marker}"
    return found[1]


def commands(marker: str) -> list[list[str]]:
    return [shlex.split(line) for line in block(marker).splitlines() if line.startswith("atrous ")]


def make_images(root: Path) -> None:
    """A folder dataset as the README draws it: bright squares on dark ground."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(12):
        mask = np.zeros((60, 80), np.uint8)
        top, left = random.integers(0, 30, 2)
        mask[top : top + 25, left : left + 25] = 1 + number % 2
        image = np.array([(40, 40, 40), (200, 60, 60), (60, 60, 200)], np.uint8)[mask]
        cv2.imwrite(str(root / "images" / f"{number}.jpg"), image)
        cv2.imwrite(str(root / "masks" / f"{number}.png"), mask)
    (root / "labels.toml").write_text('names = ["background", "path", "plant"]\n', encoding="utf-8")


@pytest.mark.slow
def test_the_five_minute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "my-images")
    path = commands("<!-- five-minutes -->")
    assert [words[1] for words in path] == ["data", "train", "evaluate", "predict"]
    for words in path:
        settings = [part for change in SMALL for part in ("--set", change)] if words[1] == "train" else []
        answer = CliRunner().invoke(app, words[1:] + settings)
        assert answer.exit_code == 0, f"{shlex.join(words)}\n{answer.output}"
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 12


@pytest.mark.parametrize(("marker", "job"), [("<!-- main-job -->", "demo"), ("<!-- tests -->", "test")])
def test_each_job_is_one_command_line_that_sets_itself_up(marker: str, job: str) -> None:
    assert block(marker) == f"python3 run.py {job}\n"
    assert job in run.JOBS
    assert run.main([]) == run.main(["nonsense"]) == 2


@pytest.mark.slow
def test_the_demo_segments_with_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (_, command) = run.JOBS["demo"]
    answer = CliRunner().invoke(app, command[2:])
    assert answer.exit_code == 0, answer.output
    assert "person" in answer.output
    assert (tmp_path / "atrous-demo" / "grace_hopper.side_by_side.jpg").is_file()


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", np.full((50, 70, 3), 120, np.uint8))
    names = {"images": torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)}
    exec(compile(block("## In Python"), "README.md", "exec"), names)
    assert names["logits"].shape == (1, 21, 65, 65)
    assert (tmp_path / "mask.png").is_file()


def test_every_file_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(((?!https?://)[^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") == PAGES[name]()
