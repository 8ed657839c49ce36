"""The shapes that other tools speak: KServe, Hugging Face, Label Studio."""

import base64
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from atrous.data.files.rle import inside_brush
from atrous.serve import kserve
from atrous.serve.batching import Job, Queue
from atrous.serve.settings import Limits, ServeSettings
from tests.serve.conftest import client_of, picture

RIGHT = np.repeat([[0] * 20 + [2] * 20], 30, axis=0)
PIXELS = np.asarray(Image.open(BytesIO(picture())))
CONFIG = """<View><Image name="img" value="$photo"/><BrushLabels name="brush" toName="img">
<Label value="Blue"/><Label value="Rot" predicted_values="red,crimson"/><Label value="dog"/></BrushLabels></View>"""


def infer(client: TestClient, tensor: dict[str, Any], **more: Any) -> Any:
    return client.post("/v2/models/colors/infer", json={"id": "7", "inputs": [tensor], **more})


def test_kserve_describes_a_model(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "atrous"
    found = client.get("/v2/models/colors").json()
    assert found["inputs"][0] == {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert [output["name"] for output in found["outputs"]] == ["labels", "probabilities"]
    assert client.get("/v2/models/colors/ready").json()["ready"]
    assert client.get("/v2/models/cats").json()["error"].startswith("there is no model 'cats'")


def test_kserve_infers_from_numbers_in_json(client: TestClient) -> None:
    batch = np.stack([PIXELS, PIXELS[:, ::-1]])
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(batch.shape), "data": batch.ravel().tolist()}
    found = infer(client, tensor, outputs=[{"name": "labels"}, {"name": "probabilities"}]).json()
    assert (found["model_name"], found["id"]) == ("colors", "7")
    labels, probabilities = (np.array(each["data"]).reshape(each["shape"]) for each in found["outputs"])
    assert (labels == np.stack([RIGHT, RIGHT[:, ::-1]])).all()
    assert probabilities.shape == (2, 3, 30, 40)
    assert (probabilities.argmax(1) == labels).all()


def test_kserve_infers_from_binary_tensors(client: TestClient) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *PIXELS.shape]}
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": PIXELS.size}}],
            "outputs": [{"name": "labels", "parameters": {"binary_data": True}}],
        }
    ).encode()
    name = "Inference-Header-Content-Length"
    answer = client.post("/v2/models/colors/infer", content=head + PIXELS.tobytes(), headers={name: str(len(head))})
    length = int(answer.headers[name])
    assert json.loads(answer.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": RIGHT.size}
    assert (np.frombuffer(answer.content[length:], np.uint8).reshape(RIGHT.shape) == RIGHT).all()


def test_kserve_infers_from_a_file_with_options(client: TestClient) -> None:
    text = base64.b64encode(picture()).decode()
    tensor = {"name": "file", "datatype": "BYTES", "shape": [1], "data": [text]}
    found = infer(client, tensor, parameters={"flip": True, "scales": "0.5,1"}).json()
    assert (np.array(found["outputs"][0]["data"]).reshape(30, 40) == RIGHT).mean() > 0.9
    content = picture()
    tail = struct.pack("<I", len(content)) + content
    head = json.dumps({"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1]}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert client.post("/v2/models/colors/infer", content=head + tail, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("tensor", "more", "words"),
    [
        ({"name": "x", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 0]}, {}, "expected 'image' of UINT8"),
        ({"name": "image", "datatype": "UINT8", "shape": [1, 2, 1, 3], "data": [0]}, {}, "has 1 values, expected"),
        ({"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 256]}, {}, "0 to 256, expected"),
        ({"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": ["a"]}, {}, "not integers"),
        (
            {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 4], "data": [0] * 4},
            {},
            "an RGB image as uint8 (H, W, 3)",
        ),
        ({"name": "file", "datatype": "BYTES", "shape": [1], "data": ["%"]}, {}, "not base64"),
        ({"name": "file", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}, {}, "expected an image"),
        ({"name": "file", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}, {"parameters": {"x": 1}}, "no option"),
        ({"name": "file"}, {"outputs": [{"name": "boxes"}]}, "there is no output 'boxes'"),
        ({"name": 3}, {}, "inputs.0.name"),
    ],
)
def test_kserve_says_what_it_expected(client: TestClient, tensor: Any, more: Any, words: str) -> None:
    answer = infer(client, tensor, **more)
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["error"]


def test_kserve_wants_the_length_of_json_and_of_a_file_to_be_true(client: TestClient) -> None:
    head = json.dumps({"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1]}]}).encode()
    for length, tail, words in (
        ("9" * 5000, b"", "expected the length of the JSON"),
        (str(len(head)), struct.pack("<I", 3) + picture(), "which says 3"),
        (str(len(head)), b"\1", "has 1 bytes behind the JSON"),
    ):
        headers = {"Inference-Header-Content-Length": length}
        answer = client.post("/v2/models/colors/infer", content=head + tail, headers=headers)
        assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text


def test_kserve_bounds_the_images_of_a_request_and_the_numbers_of_an_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"name": "image", "datatype": "UINT8", "shape": [65, 1, 1, 3], "data": [0] * 195}
    assert "has 65 images, expected at most 64" in infer(client, many).json()["error"]
    monkeypatch.setattr(kserve, "MOST_NUMBERS", 1000)
    one = {"name": "image", "datatype": "UINT8", "shape": [1, *PIXELS.shape], "data": PIXELS.ravel().tolist()}
    assert "1,200 numbers in JSON, expected at most 1,000" in infer(client, one).json()["error"]
    for asked in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "labels", "parameters": {"binary_data": True}}] * 2},
    ):
        answer = infer(client, one, **asked)
        length = int(answer.headers["inference-header-content-length"])
        assert answer.content[length:] == RIGHT.astype(np.uint8).tobytes()


def test_hugging_face_gets_a_mask_for_each_class(client: TestClient) -> None:
    for answer in (
        client.post("/huggingface", content=picture(), headers={"Content-Type": "image/png"}),
        client.post("/huggingface/colors", json={"inputs": base64.b64encode(picture()).decode()}),
    ):
        found = answer.json()
        assert [one["label"] for one in found] == ["red", "blue"]
        assert 0.5 < found[0]["score"] < 0.7
        mask = np.asarray(Image.open(BytesIO(base64.b64decode(found[1]["mask"]))))
        assert (mask == 255 * (RIGHT == 2)).all()
    assert "error" in client.post("/huggingface/colors", json={"inputs": 3}).json()


def task(image: str) -> dict[str, Any]:
    return {"tasks": [{"id": 1, "data": {"photo": image}}], "label_config": CONFIG}


def test_all_images_of_a_request_have_one_deadline(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float] = []
    add = Queue.add

    def noted(queue: Queue, job: Job) -> None:
        deadlines.append(job.deadline)
        add(queue, job)

    monkeypatch.setattr(Queue, "add", noted)
    batch = np.stack([PIXELS, PIXELS])
    infer(client, {"name": "image", "datatype": "UINT8", "shape": list(batch.shape), "data": batch.ravel().tolist()})
    image = "data:image/png;base64," + base64.b64encode(picture()).decode()
    asked = task(image)
    assert len(client.post("/predict", json={**asked, "tasks": asked["tasks"] * 3}).json()["results"]) == 3
    assert [deadlines.count(deadline) for deadline in dict.fromkeys(deadlines)] == [2, 3]
    refused = client.post("/predict", json={**asked, "tasks": asked["tasks"] * 65})
    assert (refused.status_code, "65 tasks, expected at most 64" in refused.text) == (400, True)


def test_label_studio_gets_brushes_under_its_own_labels(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "UP"
    assert client.post("/setup", json={"project": "1.2", "schema": CONFIG}).json() == {"model_version": "colors"}
    image = "data:image/png;base64," + base64.b64encode(picture()).decode()
    found = client.post("/predict", json=task(image)).json()
    regions = found["results"][0]["result"]
    assert [region["value"]["brushlabels"] for region in regions] == [["Rot"], ["Blue"]]
    for region, label in zip(regions, (0, 2), strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("brush", "img", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (40, 30)
        assert (inside_brush(region["value"]["rle"], 30, 40) == (label == RIGHT)).all()


IMAGES = ("/data/upload/1/a.png", "/data/local-files/?d=my%20photo%20%C3%BC.png")


@pytest.fixture
def studio() -> Iterator[str]:
    """A Label Studio that has one image, for those who carry its token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/data/upload/leaves":
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:9/secret")
                self.end_headers()
                return
            if self.path == "/data/upload/nonsense":
                self.wfile.write(b"no status line\r\n\r\n")
                return
            right = self.headers["Authorization"] == "Token abc" and self.path in IMAGES
            self.send_response(200 if right else 404)
            self.end_headers()
            self.wfile.write(picture() if right else b"")

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_label_studio_keeps_the_images_and_no_other_address_is_called(studio: str) -> None:
    settings = ServeSettings(label_studio=studio, label_studio_token="abc")
    with client_of(settings=settings) as client:
        for place in (*IMAGES, f"{studio}/data/upload/1/a.png", "/data/local-files/?d=my photo ü.png"):
            assert len(client.post("/predict", json=task(place)).json()["results"][0]["result"]) == 2
        for place, words in (
            ("http://169.254.169.254/latest", "images elsewhere are not fetched"),
            (f"{studio}@127.0.0.1:9/data/upload/1/a.png", "images elsewhere are not fetched"),
            ("/data/upload/../../api/users", "images elsewhere are not fetched"),
            ("/data/upload/%2e%2e/%2e%2e/api/users", "images elsewhere are not fetched"),
            ("/data/upload/nonsense", "can't be reached"),
            ("/etc/passwd", "images elsewhere are not fetched"),
            ("file:///etc/passwd", "images elsewhere are not fetched"),
            ("/data/upload/1/b.png", "answered 404"),
            ("/data/upload/leaves", "another host"),
        ):
            found = client.post("/predict", json=task(place)).json()["results"][0]
            assert found["result"] == []
            assert words in found["error"]


def test_images_that_are_fetched_count_beside_the_request(studio: str) -> None:
    asked = json.dumps(task("/data/upload/1/a.png")).encode()
    for room, status in ((len(picture()), 200), (len(picture()) - 1, 429)):
        limits = Limits(bodies=len(asked) + room)
        settings = ServeSettings(label_studio=studio, label_studio_token="abc", limits=limits)
        with client_of(settings=settings) as client:
            assert [client.post("/predict", content=asked).status_code for _ in range(2)] == [status] * 2


def test_label_studio_is_told_what_is_missing(client: TestClient) -> None:
    found = client.post("/predict", json=task("/data/upload/1/a.png")).json()["results"][0]
    assert "--label-studio" in found["error"]
    for config, words in (
        ("<View/>", "no BrushLabels"),
        ("<View", "not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View/>', "entities"),
        (CONFIG.replace("Blue", "cat").replace("predicted_values", "x"), "none of the labels is a class of colors"),
    ):
        answer = client.post("/setup", json={"schema": config})
        assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text
    assert client.post("/predict", json={"tasks": 3, "label_config": CONFIG}).status_code == 400
    assert client.post("/predict", content=b"[").status_code == 400
