"""The examples of docs/serve.md, run against a server as a reader would."""

import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.inference.demo import find_demo_images
from tests.serve.conftest import bundled, in_thread

PAGE = (Path(__file__).resolve().parents[2] / "docs/serve.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with in_thread(bundled()) as address:
        yield address


@pytest.fixture(autouse=True)
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.open(find_demo_images()[0]).resize((128, 150)).save("photo.jpg")
    strokes = np.full((150, 128), 255, np.uint8)
    strokes[40:80, 60], strokes[40:80, 2] = 1, 0
    Image.fromarray(strokes).save("strokes.png")


def test_python(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it refuses this machine too
    said = io.StringIO()
    with redirect_stdout(said):
        for block in blocks("python"):
            if "http.server" in block:  # test_static.py runs it
                continue
            exec(compile(block.replace("http://localhost:8000", address), "serve.md", "exec"), {})
    assert "(150, 128) [ 0 15]" in said.getvalue()
    assert "person 0." in said.getvalue()
    assert '{"id": 15, "name": "person", "type": "mask"}' in said.getvalue()


def test_curl(address: str) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl")]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line.replace("http://localhost:8000", address))
        done = subprocess.run([*words, "--silent", "--fail"], capture_output=True, text=True, check=True)
        assert "image/png" in line or '"person"' in done.stdout
    assert 15 in np.unique(np.asarray(Image.open("mask.png")))
    assert np.unique(np.asarray(Image.open("labels.png"))).tolist() == [0, 1]


def test_javascript(address: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("needs node")
    (block,) = blocks("javascript")
    (tmp_path / "ask.mjs").write_text(block.replace("http://localhost:8000", address))
    done = subprocess.run([node, "ask.mjs"], capture_output=True, text=True, check=True)
    assert "person" in done.stdout
