"""Scribble to mask in a browser: strokes by pointer and keyboard, masks as Python's, a dataset that is healthy."""

import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.crf import labels_from_scribbles
from atrous.data.doctor.check import check
from atrous.data.opening import open_dataset
from tests.browser import chromium, open_page, serious_findings
from tests.serve.conftest import in_thread, picture, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browse() -> Iterator[Callable[..., Any]]:
    """Opens the page, with an image of 200×120, red left of blue."""
    with in_thread(served()) as address, chromium() as browser:

        def open_it(**options: Any) -> Any:
            page = open_page(browser, f"{address}/scribble", **options)
            page.wait_for_selector("#start option:nth-child(2)", state="attached")
            give(page, "two halves.png")
            return page

        yield open_it


def give(page: Any, name: str) -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": picture(size=(200, 120))}
    page.locator("#file").set_input_files(file)
    page.wait_for_selector(".board.filled")


def completed(page: Any, act: Callable[[], Any]) -> None:
    """Do something, and wait for the mask that it brings."""
    with page.expect_response(lambda answer: "/scribbles" in answer.url) as answer:
        act()
    assert answer.value.status == 200
    page.wait_for_selector("#busy:not(.on)")


def draw(page: Any, *places: tuple[float, float]) -> None:
    """Draw a line through places, 0 to 1 from the left and from the top."""
    sheet = page.locator("#board .sheet")
    sheet.scroll_into_view_if_needed()
    box = sheet.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def choose(page: Any, number: int) -> None:
    page.locator("#palette label").nth(number).click()


def saved(page: Any) -> zipfile.ZipFile:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as ZIP").click()
    return zipfile.ZipFile(BytesIO(Path(download.value.path()).read_bytes()))


def test_strokes_on_two_images_become_a_dataset(browse: Callable[..., Any], tmp_path: Path) -> None:
    page = browse()
    draw(page, (0.8, 0.2), (0.85, 0.7))
    page.wait_for_selector("#busy:has-text('another class')")
    choose(page, 0)
    completed(page, lambda: draw(page, (0.1, 0.2), (0.3, 0.6)))
    assert page.locator("#classes span").all_text_contents() == ["50 %", "50 %"]
    completed(page, lambda: page.locator("#start").select_option("colors"))
    page.locator("#classes input[type=text]").nth(1).fill('the "sea"')
    page.locator("#classes input[type=text]").nth(1).press("Enter")
    give(page, "two halves.png")  # of the same name
    choose(page, 1)
    draw(page, (0.8, 0.2), (0.8, 0.3))
    choose(page, 0)
    completed(page, lambda: draw(page, (0.1, 0.2), (0.1, 0.3)))
    with saved(page) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    data = open_dataset(f"folder:{tmp_path / 'scribbles'}", "all")
    assert data.label_set.names == ("background", 'the "sea"')
    assert sorted(sample.name for sample in map(data.__getitem__, range(2))) == ["two_halves-2.png", "two_halves.png"]
    for number in range(2):
        assert (data[number].mask == (np.arange(200) >= 100)).all()
    assert check(f"folder:{tmp_path / 'scribbles'}", ["all"]).healthy
    assert page.said == []


def test_undo_erase_and_classes(browse: Callable[..., Any]) -> None:
    page = browse()
    words = "new Uint32Array(canvas.getContext('2d').getImageData(0, 0, 200, 120).data.buffer)"

    def colors() -> int:
        """Of strokes, on the image."""
        found: int = page.locator("#board .ink").evaluate(f"canvas => new Set({words}).size - 1")
        return found

    draw(page, (0.8, 0.2), (0.8, 0.7))
    page.get_by_role("button", name="Add a class").click()
    draw(page, (0.2, 0.2), (0.2, 0.7))
    assert colors() == 2
    page.locator("#tool label").nth(1).click()
    page.locator("#width").fill("60")
    draw(page, (0.2, 0.0), (0.2, 1.0))
    assert colors() == 1
    page.get_by_role("button", name="Undo").click()
    assert colors() == 2
    page.get_by_role("button", name="Remove object").click()
    assert colors() == 1
    assert page.locator("#palette label").all_text_contents() == ["background", "class 2"]
    page.get_by_role("button", name="Clear").click()
    assert colors() == 0
    assert page.locator("#undo").is_disabled()
    assert [text for text in page.said if "willReadFrequently" not in text] == []  # of the test's own reading


def test_strokes_by_keyboard(browse: Callable[..., Any]) -> None:
    page = browse()
    page.locator("#board").focus()
    page.keyboard.press("1")
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.keyboard.press("2")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    completed(page, lambda: page.keyboard.press("Space"))
    with saved(page) as archive:
        image, mask = (
            np.asarray(Image.open(archive.open(f"scribbles/{kind}/two_halves.png"))) for kind in ("images", "masks")
        )
    few = np.full(mask.shape, 255, np.uint8)
    few[50:60, 52], few[50:60, 130] = 0, 1
    assert (mask == labels_from_scribbles(image, few)).all()
    page.keyboard.press("Control+z")
    page.wait_for_selector("#busy:has-text('another class')")
    assert page.said == []


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    browse: Callable[..., Any], width: int, scheme: str
) -> None:
    page = browse(width=width, scheme=scheme)
    give(page, "b.png")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert serious_findings(page) == []
