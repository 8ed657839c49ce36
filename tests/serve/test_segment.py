"""``POST /segment``: forms, what answers hold, and what is refused in which words."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from atrous.data.files.images import open_image
from atrous.data.files.rle import inside_runs, unpack_runs
from atrous.inference.demo import find_demo_images
from atrous.inference.large import Large
from atrous.inference.tiles import Tiling
from atrous.serve import options
from atrous.serve.served import ServedModel
from tests.serve.conftest import ByColor, bundled, client_of, limited, picture, served


def mask_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


RIGHT = np.repeat([[0] * 20 + [2] * 20], 30, axis=0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_raw_image_becomes_a_palette_mask(client: TestClient, kind: str) -> None:
    answer = client.post("/segment", content=picture(kind), headers={"Accept": "image/png"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    mask = Image.open(BytesIO(answer.content))
    assert mask.mode == "P"
    assert mask.getpalette()[:9] == [255, 0, 0, 0, 255, 0, 0, 0, 255]
    assert (np.asarray(mask) == RIGHT).all()
    assert "compute;dur=" in answer.headers["server-timing"]


def test_a_form_gets_areas_runs_and_the_mask(client: TestClient) -> None:
    found = client.post("/segment", files={"image": ("../../etc/passwd", picture())}, data={"flip": "true"}).json()
    assert (found["model"], found["width"], found["height"]) == ("colors", 40, 30)
    assert [(one["label"], one["name"], one["pixels"], one["fraction"]) for one in found["classes"]] == [
        (0, "red", 600, 0.5),
        (2, "blue", 600, 0.5),
    ]
    assert [known["color"] for known in found["label_set"]] == ["#ff0000", "#00ff00", "#0000ff"]
    runs = found["classes"][1]["rle"]
    assert (inside_runs(unpack_runs(runs["counts"]), *runs["size"]) == (RIGHT == 2)).all()
    assert (mask_of(base64.b64decode(found["mask"])) == RIGHT).all()
    assert set(found["timings"]) == {"decode", "queue", "compute"}
    assert "overlay" not in found


def test_what_is_asked_for_is_included(client: TestClient) -> None:
    include = "overlay,probabilities,confidence,polygons"
    found = client.post(f"/segment?include={include}", content=picture()).json()
    assert Image.open(BytesIO(base64.b64decode(found["overlay"]))).size[0] >= 40
    kept = found["probabilities"]
    values = np.frombuffer(base64.b64decode(kept["data"]), "<f2").reshape(kept["shape"])
    assert (kept["stride"], kept["offset"]) == ([1, 1], [0, 0])
    assert np.allclose(values.sum(0), 1, atol=0.01)
    assert (values.argmax(0) == RIGHT).all()
    certain = mask_of(base64.b64decode(found["confidence"]))
    assert (certain == round(255 * np.e / (np.e + 2))).all()
    assert {"label": 2, "outer": [[20, 0], [40, 0], [40, 30], [20, 30]], "holes": []} in found["polygons"]


def test_options_are_those_of_predict() -> None:
    import atrous

    model = served()
    with client_of(model) as client:
        rough = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
        buffer = BytesIO()
        Image.fromarray(rough).save(buffer, "PNG")
        for query, options in (
            ("crf=true", {"crf": True}),
            ("scales=0.5,1&flip=1", {"scales": (0.5, 1.0), "flip": True}),
        ):
            answer = client.post(f"/segment?{query}", content=buffer.getvalue(), headers={"Accept": "image/png"})
            assert (mask_of(answer.content) == atrous.predict(model.model, rough, **options).labels).all()
        wide = client.post("/segment?crf=true&sxy=9&srgb=90&smoothness_sxy=9", content=buffer.getvalue()).json()
        assert wide["mask"] != client.post("/segment?crf=true", content=buffer.getvalue()).json()["mask"]


def test_several_models_by_name() -> None:
    with client_of(served("a"), served("b")) as client:
        assert [model["name"] for model in client.get("/models").json()["models"]] == ["a", "b"]
        assert client.post("/segment", content=picture()).json()["model"] == "a"
        assert client.post("/segment?model=b", content=picture()).json()["model"] == "b"
        assert client.get("/models/b/card").json()["description"] == "goes by color"
        missing = client.get("/models/c/card")
        assert (missing.status_code, missing.json()["detail"]) == (404, "there is no model 'c' here; there are: a, b")


def broken(content: bytes) -> bytes:
    return content[: len(content) // 2]


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"hello", "image/jpeg", 415, "expected an image (JPEG, PNG, WebP, TIFF, BMP or GIF)"),
        (b"", "image/jpeg", 415, "an empty file (0 bytes)"),
        (broken(picture("JPEG", (400, 300))), "image/jpeg", 422, "copy or download it again"),
        (broken(picture("PNG", (400, 300))), "image/png", 422, "copy or download it again"),
        (bomb(20_000, 20_000), "image/png", 413, "20000×20000 pixels, which take 3.2 GB to decode"),
        (picture(), "text/plain", 415, "content type is text/plain, expected an image"),
        (b"{}", "application/json", 415, "expected an image"),
        (b"x", "multipart/form-data", 400, "the form can't be read"),
        (b"--a\r\n\r\n--a--", "multipart/form-data; boundary=a", 400, "the form can't be read"),
        (b"--a--", "multipart/form-data; boundary=a", 400, "files are none; expected one, in the field 'image'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    client: TestClient, content: bytes, kind: str, status: int, words: str
) -> None:
    answer = client.post("/segment", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert words in answer.json()["detail"]


def test_other_kinds_of_images_are_read(client: TestClient) -> None:
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    buffer = BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    animated = client.post("/segment", content=buffer.getvalue()).json()
    assert animated["notes"] == ["animation of 2 frames; only the first is read"]
    cmyk = client.post("/segment", content=picture("JPEG", mode="CMYK")).json()
    assert [one["name"] for one in cmyk["classes"]] == ["red", "blue"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("model=cats", 404, "there is no model 'cats' here; there are: colors"),
        ("colour=1", 400, "there is no option 'colour'; there are: model, crf"),
        ("crf=perhaps", 400, "crf is 'perhaps', expected a valid boolean"),
        ("scales=big", 400, "scales takes factors separated by commas, such as 0.75,1,1.25, not 'big'"),
        ("scales=9", 400, "0.125 to 8"),
        ("scales=nan", 400, "0.125 to 8"),
        ("scales=1,1", 400, "different factors"),
        ("sxy=20", 400, "add crf=true"),
        ("crf=1&sxy=0", 400, "greater than or equal to 1"),
        ("crf=1&sxy=inf", 400, "less than or equal to 500"),
        ("tile=3", 400, "greater than or equal to 65"),
        ("include=everything", 400, "'overlay', 'probabilities'"),
        ("include=attention", 400, "attention_to_scale"),
        ("output_stride=3", 400, "runs at output strides"),
        ("flip=1&flip=0", 400, "flip is given 2 times"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(client: TestClient, query: str, status: int, words: str) -> None:
    answer = client.post(f"/segment?{query}", content=picture())
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_work_is_bounded(client: TestClient) -> None:
    large = picture("JPEG", (2600, 2000))
    many = client.post("/segment?scales=1,1.5,2,3&flip=1", content=large)
    assert "as much work as an image of" in many.json()["detail"]
    tiles = client.post("/segment?scales=4&tile=2049", content=large)
    assert "use smaller scales, or a smaller tile" in tiles.json()["detail"]


def test_tiles_are_those_of_predict() -> None:
    model, photo = bundled(), find_demo_images()[0]
    with client_of(model) as client:
        found = client.post("/segment?tile=513", content=photo.read_bytes()).json()
    tiled = model.predictor().segment(open_image(photo), large=Large(Tiling(513)))
    assert "labelled in tiles of 513 pixels" in found["notes"][0]
    assert (mask_of(base64.b64decode(found["mask"])) == tiled.labels).all()


def test_a_request_of_too_many_bytes_is_refused_before_it_is_read() -> None:
    with client_of(settings=limited(body=2**20)) as client:
        announced = client.post("/segment", content=b"\0" * (2**20 + 1))
        assert announced.status_code == 413
        assert "1,048,577 bytes, expected at most 1 MB" in announced.json()["detail"]
        streamed = client.post("/segment", content=(b"\0" * 2**18 for _ in range(6)))
        assert streamed.status_code == 413


def test_only_what_there_is_can_be_accepted(client: TestClient) -> None:
    assert client.post("/segment", content=picture(), headers={"Accept": "text/csv"}).status_code == 406
    both = client.post("/segment?include=overlay", content=picture(), headers={"Accept": "image/png"})
    assert both.status_code == 400
    image = client.post("/segment", content=picture(), headers={"Accept": "image/*, */*;q=0.1"})
    assert image.headers["content-type"] == "image/png"
    assert client.get("/segment").status_code == 405
    assert client.get("/no/such/place").status_code == 404


def test_a_fault_of_our_own_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    model = served()
    model.model.wait = lambda: 1 / 0  # type: ignore[union-attr]
    with client_of(model) as client:
        answer = client.post("/segment", content=picture())
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_json_is_what_the_description_says(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    names = {parameter["name"] for parameter in described["paths"]["/segment"]["post"]["parameters"]}
    assert {"crf", "scales", "output_stride", "include"} <= names
    answer = described["components"]["schemas"]["Answer"]
    found = client.post("/segment", content=picture()).json()
    assert set(answer["required"]) <= set(found) <= set(answer["properties"])
    assert json.dumps(described)


def test_the_work_of_a_request_counts_at_the_models_own_output_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "MOST_WORK", 2000)
    for stride, status in ((16, 200), (8, 422)):
        network = ByColor()
        network.stride = stride
        with client_of(ServedModel("colors", "colors", network)) as client:  # type: ignore[arg-type]
            assert client.post("/segment", content=picture()).status_code == status
