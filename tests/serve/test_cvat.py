"""The serverless function for CVAT, as nuclio calls it."""

import base64
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import atrous
from atrous.data.files.rle import inside_rows, rows_of
from atrous.inference.segmentation import Segmentation
from atrous.labels import LabelSet
from atrous.serve.cvat import masks_of
from tests.serve.conftest import picture

FOLDER = Path(__file__).resolve().parents[2] / "examples/cvat"


def test_each_connected_part_is_a_mask_in_its_box() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[2:8, 3:9] = labels[12:18, 20:28] = 1
    labels[10, 10] = 2  # too small to be an object
    found = masks_of(Segmentation(labels, np.zeros((20, 30, 3), np.uint8), LabelSet(("background", "cat", "dog"))))
    assert [(one["label"], one["type"], one["mask"][-4:]) for one in found] == [
        ("cat", "mask", [3, 2, 8, 7]),
        ("cat", "mask", [20, 12, 27, 17]),
    ]
    assert len(found[0]["mask"]) == 36 + 4
    inside = np.array(found[1]["mask"][:-4], bool).reshape(6, 8)
    assert (inside_rows(rows_of(inside), 6, 8) == inside).all()


@pytest.mark.slow
def test_the_function_answers_as_nuclio_expects() -> None:
    spec = importlib.util.spec_from_file_location("cvat_main", FOLDER / "main.py")
    assert spec
    assert spec.loader
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    context: Any = SimpleNamespace(
        user_data=SimpleNamespace(), logger=SimpleNamespace(info=print), Response=lambda **given: given
    )
    main.init_context(context)
    good = main.handler(
        context, SimpleNamespace(body={"image": base64.b64encode(picture()).decode(), "threshold": 0.5})
    )
    assert (good["status_code"], json.loads(good["body"])) == (200, [])
    bad = main.handler(context, SimpleNamespace(body={"image": "aGVsbG8="}))
    assert bad["status_code"] == 400
    assert "expected an image" in bad["body"]
    config = yaml.safe_load((FOLDER / "function.yaml").read_text())
    listed = json.loads(config["metadata"]["annotations"]["spec"])
    names = atrous.load("deeplabv3plus_lite0_voc").label_set.names
    assert [one["name"] for one in listed] == list(names[1:])
