"""The page without a server: its files, and in a browser its masks."""

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.errors import InputError
from tests.browser import chromium, open_page, serious_findings
from tests.serve.conftest import ServedModel, served

pytest.importorskip("onnxscript", reason="needs the extra 'export'")
pytest.importorskip("onnxruntime", reason="needs the extra 'export'")

from atrous.serve.static import WASM, write_static

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "node_modules" / "onnxruntime-web"
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def package(folder: Path, names: tuple[str, ...] = WASM) -> Path:
    """A package in which nothing is."""
    (folder / "dist").mkdir(parents=True)
    for name in names:
        (folder / "dist" / name).write_text(name)
    return folder


def test_what_is_refused(tmp_path: Path) -> None:
    model = atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=3, pretrained=False)
    plain = ServedModel("plain", "plain", model)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("")
    (tmp_path / "odd.tgz").write_bytes(b"hello")
    good = package(tmp_path / "good")
    for model, folder, runtime, words in (
        (served(), tmp_path / "new", good, "a network of RGB images"),
        (plain, tmp_path / "full", good, "name a new folder"),
        (plain, tmp_path / "new", tmp_path / "none", "npm pack"),
        (plain, tmp_path / "new", tmp_path / "odd.tgz", "not an archive of npm's"),
        (plain, tmp_path / "new", package(tmp_path / "old", WASM[:2]), rf"has no {WASM[2]}"),
    ):
        with pytest.raises(InputError, match=words):
            write_static(model, folder, runtime)  # type: ignore[arg-type]
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, ServedModel]]:
    """The page of a small network, sent by the server of docs/serve.md."""
    if not PACKAGE.is_dir():
        pytest.skip("needs onnxruntime-web in the checkout (npm install --no-save onnxruntime-web)")
    model = atrous.create_model("deeplabv3", backbone="test_resnet", label_set=[f"c{n}" for n in range(5)]).eval()
    small = ServedModel("small", "small", model)
    write_static(small, tmp_path / "page", PACKAGE)
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "http.server" in block)
    names: dict[str, type] = {}
    exec(program.partition("http.server.ThreadingHTTPServer")[0], names)
    handler = functools.partial(names["Handler"], directory=str(tmp_path / "page"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        names["Handler"].log_message = lambda *_: None  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", small
        server.shutdown()


@pytest.mark.slow
def test_a_browser_gives_the_masks_of_predict(address: tuple[str, ServedModel]) -> None:
    url, small = address
    y, x = np.mgrid[:70, :90]
    image = np.stack([2 * y, 2 * x, x + y], -1).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    with chromium() as browser:
        page = open_page(browser, url, width=390)
        page.wait_for_selector("#legend li")
        assert page.evaluate("crossOriginIsolated")
        assert "Computed with W" in page.locator("#notes").text_content()
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
        page.wait_for_function("document.getElementById('facts').textContent.startsWith('90×70')")
        with page.expect_download() as download:
            page.get_by_role("button", name="Mask (PNG)").click()
        found = np.asarray(Image.open(download.value.path()))
        assert (found == atrous.predict(small.model, image).labels).mean() > 0.999
        with page.expect_download() as download:
            page.get_by_role("button", name="Areas (JSON)").click()
        assert sum(one["pixels"] for one in json.loads(Path(download.value.path()).read_text())["classes"]) == 6300
        assert not page.locator("#crf").is_visible()
        assert page.get_by_role("link", name="Scribble").count() == 0
        assert [text for text in page.said if "adapter" not in text] == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert serious_findings(page) == []
