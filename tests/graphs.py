"""Exported files of a few operations, so that these tests need no network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFile = Callable[..., Path]
CARD = {
    "library": "atrous",
    "architecture": "by_channel",
    "output_stride": 1,
    "in_channels": 3,
    "label_set": {"names": ["red", "green", "blue"], "colors": [[255, 0, 0], [0, 255, 0], [0, 0, 255]]},
}


def write_graph(file: Path, *, probabilities: bool, card: Any, broken_at: int | None) -> Path:
    """A graph that takes each pixel for the class of its strongest channel."""
    onnx = pytest.importorskip("onnx", reason="needs atrous[export]")
    node, info, types = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    nodes = [
        node("Cast", ["image"], ["float"], to=types.FLOAT),
        node("Transpose", ["float"], ["logits"], perm=[0, 3, 1, 2]),
        node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        node("Cast", ["best"], ["labels"], to=types.UINT8),
    ]
    outputs = [info("labels", types.UINT8, ["N", "H", "W"])]
    if probabilities:
        nodes.append(node("Softmax", ["logits"], ["probabilities"], axis=1))
        outputs.append(info("probabilities", types.FLOAT, ["N", 3, "H", "W"]))
    sides = [broken_at, broken_at] if broken_at else ["H", "W"]
    graph = onnx.helper.make_graph(nodes, "graph", [info("image", types.UINT8, ["N", *sides, 3])], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        onnx.helper.set_model_props(model, {"atrous": card if isinstance(card, str) else json.dumps(card)})
    onnx.save(model, file)
    return file
