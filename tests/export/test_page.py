"""The programs of docs/export.md label an image as Atrous does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous

pytest.importorskip("onnx", reason="needs the extra 'export'")
pytest.importorskip("onnxscript", reason="needs the extra 'export'")
pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
MODULES = Path(__file__).resolve().parents[2] / "node_modules"


def program(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.mark.slow
def test_the_programs_of_the_page_give_the_labels_of_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:70, :90]
    Image.fromarray(np.stack([2 * y, 2 * x, x + y], -1).astype(np.uint8)).save("photo.png")
    model = atrous.create_model("deeplabv3", backbone="test_resnet", label_set=[f"c{n}" for n in range(5)])
    atrous.export_model(model, "model.onnx")
    expected = atrous.predict(model.eval(), "photo.png").labels
    exec(compile(program("python"), "docs/export.md", "exec"), {})
    assert (np.asarray(Image.open("mask.png")) == expected).mean() > 0.999
    if not (shutil.which("node") and (MODULES / "onnxruntime-web").is_dir() and (MODULES / "pngjs").is_dir()):
        pytest.skip("JavaScript: needs node, and onnxruntime-web and pngjs installed in the checkout by npm")
    Path("node_modules").symlink_to(MODULES)
    Path("label.mjs").write_text(program("js"), encoding="utf-8")
    subprocess.run(["node", "label.mjs"], check=True, timeout=300)
    assert (np.fromfile("labels.bin", np.uint8).reshape(expected.shape) == expected).mean() > 0.999
