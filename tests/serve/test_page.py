"""The page in a browser: every control moved, and its masks compared with those of ``predict``."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.inference.demo import find_demo_images
from tests.browser import chromium, open_page, serious_findings
from tests.serve.conftest import ServedModel, bundled, in_thread, picture, served

pytestmark = pytest.mark.slow
NAME = "deeplabv3plus_lite0_voc"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server in a thread, with the bundled model, one that goes by color, and one that attends to scales."""
    attentive = atrous.create_model("attention_to_scale", backbone="resnet18", num_classes=3, pretrained=False)
    with in_thread(bundled(), served(), ServedModel("attentive", "attentive", attentive.eval())) as address:
        yield f"{address}/"


@pytest.fixture(scope="module")
def browse(address: str) -> Iterator[Callable[..., Any]]:
    with chromium() as browser:

        def open_it(path: str = "", **options: Any) -> Any:
            page = open_page(browser, address + path, **options)
            page.wait_for_selector("#legend li")
            return page

        yield open_it


def settled(page: Any, act: Callable[[], Any]) -> None:
    """Do something, and wait for the mask that it brings."""
    with page.expect_response(lambda answer: "/segment" in answer.url) as answer:
        act()
    assert answer.value.status == 200
    page.wait_for_selector("#busy:not(.on)")


def mask(page: Any) -> np.ndarray:
    """The mask that the page saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Mask (PNG)").click()
    return np.asarray(Image.open(download.value.path()))


def set_range(page: Any, name: str, value: int) -> None:
    page.locator(f"#{name}").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", str(value)
    )


def test_each_control_gives_the_mask_of_predict(browse: Callable[..., Any]) -> None:
    model, photo = atrous.load(NAME), find_demo_images()[0]
    page = browse()
    assert (mask(page) == atrous.predict(model, photo).labels).all()
    assert "person" in page.locator("#legend").text_content()

    settled(page, lambda: page.get_by_role("radio", name="Output stride 32").check())
    assert (mask(page) == atrous.predict(model, photo, output_stride=32).labels).all()
    assert "of the pixels changed" in page.locator("#change").text_content()
    assert "ms" in page.locator("#dial label", has_text="32").text_content()

    settled(page, lambda: page.get_by_role("switch", name="Mirror image").check())
    settled(page, lambda: page.locator("#scales span", has_text="0.75").click())
    page.wait_for_timeout(300)
    options = {"output_stride": 32, "flip": True, "scales": (0.75, 1.0)}
    assert (mask(page) == atrous.predict(model, photo, **options).labels).all()

    settled(page, lambda: page.get_by_role("switch", name="Dense CRF").check())
    assert (mask(page) == atrous.predict(model, photo, crf=True, **options).labels).all()
    before = mask(page)
    for width, value in (("sxy", 20), ("srgb", 30), ("smoothness_sxy", 9)):
        settled(page, lambda width=width, value=value: set_range(page, width, value))
    assert (mask(page) != before).any()

    link = page.evaluate("location.hash")
    again = browse(link)
    assert (mask(again) == mask(page)).all()
    assert again.locator("#srgb").input_value() == "30"
    assert page.said == again.said == []


def test_classes_cursor_and_slider_by_keyboard(browse: Callable[..., Any]) -> None:
    page = browse()
    painted = "stage => stage.querySelectorAll('canvas')[1].toDataURL()"
    stage = page.locator("#stage-a")
    first = stage.evaluate(painted)
    page.locator("#legend li", has_text="person").locator("input").focus()
    page.keyboard.press("Space")
    assert stage.evaluate(painted) != first
    page.keyboard.press("Space")
    assert stage.evaluate(painted) == first
    stage.focus()
    page.keyboard.press("ArrowDown")
    assert "person, " in page.locator("#readout").text_content()
    assert "% sure at 256, 312" in page.locator("#readout").text_content()
    page.locator("#cut").focus()
    page.keyboard.press("End")
    assert stage.evaluate("stage => stage.style.getPropertyValue('--cut')") == "100%"
    set_range(page, "opacity", 20)
    assert stage.evaluate("stage => stage.style.getPropertyValue('--opacity')") == "0.2"
    page.locator("#layer").select_option("confidence")
    assert stage.evaluate(painted) != first
    assert page.said == []


def test_images_are_chosen_dropped_and_pasted_and_bad_ones_are_a_sentence(browse: Callable[..., Any]) -> None:
    page = browse("#model=colors")
    file = {"name": "own.png", "mimeType": "image/png", "buffer": picture()}
    settled(page, lambda: page.locator("#file").set_input_files(file))
    assert page.locator("#legend b").all_text_contents() == ["red", "blue"]
    for event, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        give = f"""([bytes]) => {{
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "given.png", {{ type: "image/png" }}));
            const event = new Event("{event}", {{ bubbles: true }});
            Object.defineProperty(event, "{holder}", {{ value: data }});
            document.body.dispatchEvent(event);
        }}"""
        settled(page, lambda give=give: page.evaluate(give, [list(picture(size=(50, 20)))]))
        assert mask(page).shape == (20, 50)
    page.locator("#file").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"hello"})
    page.wait_for_selector("#problem:not([hidden])")
    assert "expected an image" in page.locator("#problem").text_content()
    assert [text for text in page.said if "415" not in text] == []


def test_two_models_side_by_side_attention_and_downloads(browse: Callable[..., Any]) -> None:
    page = browse()
    page.locator("#with").select_option("colors")
    page.wait_for_selector("#other:not([hidden])")
    assert "of the pixels differ" in page.locator("#name-b").text_content()
    page.locator("#stage-b .sheet").hover(position={"x": 30, "y": 30})
    assert " | " in page.locator("#readout").text_content()
    page.locator("#with").select_option("kept")
    settled(page, lambda: page.locator("#model").select_option("colors"))
    assert NAME in page.locator("#name-b").text_content()
    for name in ("Overlay (JPEG)", "Areas (JSON)", "Outlines (GeoJSON)"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        content = Path(download.value.path()).read_bytes()
        if "JPEG" in name:
            assert Image.open(BytesIO(content)).format == "JPEG"
        else:
            found = json.loads(content)
            assert found["features"] if "Geo" in name else found["classes"]
    settled(page, lambda: page.locator("#model").select_option("attentive"))
    assert "attention at scale" in page.locator("#layer").text_content()
    assert page.said == []


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    browse: Callable[..., Any], address: str, width: int, scheme: str
) -> None:
    page = browse(width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert serious_findings(page) == []
    page.goto(f"{address}docs")
    page.wait_for_selector(".path")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert serious_findings(page) == []


def test_nothing_is_loaded_from_elsewhere(browse: Callable[..., Any], address: str) -> None:
    page = browse()
    loaded = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    assert [name for name in loaded if not name.startswith((address, "blob:", "data:"))] == []
