"""Mutated uploads through the whole application: ``python -m tests.serve.mutated 10000``.

Images of several formats, forms and JSON with changed, cut, doubled and lengthened bytes, sent to every endpoint that
takes a body. Allowed are answers below 500.
"""

import base64
import json
import sys
import time
from collections import Counter

import numpy as np
from starlette.testclient import TestClient

from tests.serve.conftest import client_of, limited, picture

FORM = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%b\r\n--edge--\r\n'
CONFIG = (
    '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"><Label value="red"/></BrushLabels></View>'
)


def healthy() -> list[tuple[str, str, bytes]]:
    """Path, content type and body of requests that are answered with 200."""
    text = base64.b64encode(picture()).decode()
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12}
    task = {"tasks": [{"data": {"image": f"data:image/png;base64,{text}"}}], "label_config": CONFIG}
    form = "multipart/form-data; boundary=edge"
    return [
        *(("/segment", "image/x", picture(kind)) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")),
        ("/segment?include=confidence,polygons,overlay", "image/x", picture()),
        ("/segment", form, FORM % picture("JPEG")),
        ("/huggingface", "application/json", json.dumps({"inputs": text}).encode()),
        ("/v2/models/colors/infer", "application/json", json.dumps({"inputs": [tensor]}).encode()),
        ("/predict", "application/json", json.dumps(task).encode()),
    ]


def mutate(body: bytes, random: np.random.Generator) -> bytes:
    """One to eight changes: bytes anywhere, a part cut out, doubled or put at the end, the end cut off."""
    values = bytearray(body)
    for _ in range(random.integers(1, 9)):
        first, last = sorted(random.integers(0, len(values) + 1, 2).tolist())
        last = min(last, first + int(2 ** random.uniform(0, 8)))
        match int(random.integers(5)):
            case 0 | 1:
                values[first:last] = random.bytes(last - first)
            case 2:
                del values[first:last]
            case 3:
                values[first:first] = values[first:last]
            case _:
                values = values[: max(1, len(values) - int(2 ** random.uniform(0, 10)))]
        values = values or bytearray(b"\0")
    return bytes(values)


def run(client: TestClient, count: int, seed: int = 0) -> Counter[int]:
    """Send mutated requests; how many answers had which status.

    Raises:
        AssertionError: an answer of 500 or above.
    """
    random, requests, found = np.random.default_rng(seed), healthy(), Counter[int]()
    for number in range(count):
        path, kind, body = requests[number % len(requests)]
        content = mutate(body, random)
        answer = client.post(path, content=content, headers={"Content-Type": kind})
        assert answer.status_code < 500, (seed, number, path, answer.text)
        found[answer.status_code] += 1
    return found


if __name__ == "__main__":
    with client_of(settings=limited(seconds=600)) as client:
        begin = time.monotonic()
        print(dict(run(client, int(sys.argv[1]))), f"{time.monotonic() - begin:.0f} s")
