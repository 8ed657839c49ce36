"""``POST /scribbles``: strokes completed to masks, under the limits of every request."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from atrous.crf import labels_from_scribbles
from atrous.serve import scribbles
from tests.serve.conftest import picture

SIZE = (40, 30)


def strokes(size: tuple[int, int] = SIZE, mode: str = "L", classes: tuple[int, int] = (1, 2)) -> bytes:
    """A stroke on each side."""
    labels = np.full((size[1], size[0]), 255, np.uint8)
    labels[5:8, 2:6], labels[5:8, -6:-2] = classes
    buffer = BytesIO()
    Image.fromarray(labels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def files(image: bytes | None = None, drawn: bytes | None = None) -> dict[str, tuple[str, bytes, str]]:
    contents = {"image": image or picture(size=SIZE), "scribbles": drawn or strokes()}
    return {name: (f"{name}.png", content, "image/png") for name, content in contents.items()}


def test_the_mask_is_pythons_as_png_and_json(client: TestClient) -> None:
    image, drawn = (np.asarray(Image.open(BytesIO(content))) for content in (picture(size=SIZE), strokes()))
    expected = labels_from_scribbles(image, drawn)
    answer = client.post("/scribbles", files=files(), headers={"Accept": "image/png"})
    assert answer.status_code == 200
    assert (np.asarray(Image.open(BytesIO(answer.content))) == expected).all()
    found = client.post("/scribbles?srgb=20", files=files(), data={"sxy": "50"}).json()
    assert (found["width"], found["height"]) == SIZE
    assert {one["label"]: one["pixels"] for one in found["classes"]} == {1: 600, 2: 600}
    described = client.get("/openapi.json").json()["components"]["schemas"]["Completed"]
    assert set(found) == set(described["properties"])


def test_a_network_is_a_start(client: TestClient) -> None:
    found = client.post("/scribbles?model=colors", files=files(drawn=strokes(mode="P"))).json()
    assert {one["label"]: one["pixels"] for one in found["classes"]} == {1: 600, 2: 600}


@pytest.mark.parametrize(
    ("query", "given", "status", "words"),
    [
        ("", files(drawn=strokes(size=(30, 40))), 422, "30×40 pixels, expected 40×30"),
        ("", files(drawn=strokes(classes=(255, 255))), 422, "no strokes"),
        ("", files(drawn=strokes(mode="RGB")), 422, "a palette or grey mask"),
        ("", files(drawn=b"hello"), 422, "expected a PNG of one channel"),
        ("", files(image=b"hello"), 415, "expected an image"),
        ("", {"image": files()["image"]}, 400, "the fields 'image' and 'scribbles'"),
        ("?wide=1", files(), 400, "there is no option 'wide'"),
        ("?srgb=0", files(), 400, "greater than or equal to 1"),
        ("?model=none", files(), 404, "there is no model"),
        ("", None, 415, "expected a form"),
    ],
)
def test_bad_requests_are_a_sentence(client: TestClient, query: str, given: Any, status: int, words: str) -> None:
    answer = client.post(f"/scribbles{query}", files=given)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_large_images_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scribbles, "MOST_PIXELS", 1000)
    assert client.post("/scribbles", files=files()).status_code == 422
    monkeypatch.setattr(scribbles, "MOST_PIXELS", 2000)
    monkeypatch.setattr(scribbles, "MOST_PROBABILITIES", 3000)
    assert "leave out model" in client.post("/scribbles?model=colors", files=files()).json()["detail"]
