"""The page without a server in headless Chromium beside Python, on the same images.

    python -m benchmarks.browser PAGE path/to/VOCdevkit/VOC2012

PAGE is a folder that `atrous serve --static` wrote, with the bundled model. Images are sent to the page as PNG and as
JPEG, whose decoders differ between programs.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import atrous
from atrous.bundle import DEFAULT
from benchmarks._compare import FOLDER
from studies.results import Result, Section, origin_of
from tests.browser import chromium, open_page

IMAGES = 10
AIM = 0.999


class Handler(http.server.SimpleHTTPRequestHandler):
    """Sends files with the headers that threads of WASM need."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def sent(folder: Path) -> Iterator[str]:
    """The address of a folder's files."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def segmented(page: Any, content: bytes, kind: str) -> tuple[NDArray[np.uint8], float]:
    """The mask that the page saves of an image, and the network's milliseconds."""
    page.locator("#facts").evaluate("facts => { facts.textContent = ''; }")
    page.locator("#file").set_input_files({"name": f"image.{kind}", "mimeType": f"image/{kind}", "buffer": content})
    page.wait_for_function("document.getElementById('facts').textContent != ''")
    took = re.search(r"Network (\d+) ms", page.locator("#facts").text_content())
    with page.expect_download() as download:
        page.get_by_role("button", name="Mask (PNG)").click()
    assert took
    return np.asarray(Image.open(download.value.path())), float(took[1])


def main(folder: Path, voc: Path) -> None:
    names = (voc / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split()
    files = [voc / "JPEGImages" / f"{name}.jpg" for name in names[:: len(names) // IMAGES][:IMAGES]]
    found: dict[tuple[str, str], tuple[NDArray[np.uint8], float]] = {}
    with sent(folder) as address, chromium() as browser:
        page = open_page(browser, address)
        page.wait_for_selector("#legend li")
        for file in files:
            png = io.BytesIO()
            Image.open(file).save(png, "PNG")
            for kind, content in (("png", png.getvalue()), ("jpeg", file.read_bytes())):
                found[file.stem, kind] = segmented(page, content, kind)
        runtime = page.locator("#notes").text_content()
    rows, facts = [["image", "labels as PNG", "as JPEG", "network"]], {}
    model = atrous.load(DEFAULT)
    for file in files:
        expected = atrous.predict(model, file).labels
        png_share, jpeg_share = (float((found[file.stem, kind][0] == expected).mean()) for kind in ("png", "jpeg"))
        took = found[file.stem, "png"][1]
        facts[file.stem] = {"png": png_share, "jpeg": jpeg_share, "milliseconds": took}
        rows.append([file.stem, f"{png_share:.4%}", f"{jpeg_share:.4%}", f"{took:.0f} ms"])
    least = min(one["png"] for one in facts.values())
    text = (
        f"The least share of equal labels is **{least:.4%}** ({'reached' if least >= AIM else 'MISSED'}: {AIM:.1%}). "
        f"{runtime}"
    )
    command = "python -m benchmarks.browser PAGE VOC2012"
    section = Section("", text, rows, facts=facts, origin=origin_of(command, peers=["onnxruntime", "playwright"]))
    notes = (
        f"`{DEFAULT}` in the page that `atrous serve --static` writes, in headless Chromium, beside `atrous.predict`, "
        "on images of VOC val. The decoders of JPEG are the browser's and OpenCV's.",
    )
    Result("In the browser alone", command, notes, {"voc": section}).write(FOLDER / "browser")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("voc", type=Path)
    given = parser.parse_args()
    main(given.page, given.voc)
