"""Weights of three bytes."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra 'export'")
pytest.importorskip("onnxruntime", reason="needs the extra 'export'")

import onnx
import onnxruntime

from atrous.export.compact import compact, split

RNG = np.random.default_rng(0)


def test_three_bytes_hold_nearly_all_of_a_weight() -> None:
    values = (RNG.normal(size=(32, 8, 3, 3)) * 10.0 ** RNG.uniform(-6, 3, (32, 1, 1, 1))).astype(np.float32)
    half, rest, scale = split(values)
    assert half.nbytes + rest.nbytes == 3 * values.size
    error = np.abs(half.astype(np.float32) + rest.astype(np.float32) * scale - values)
    assert (error <= np.maximum(2**-18 * np.abs(values).max((1, 2, 3), keepdims=True), 2**-32)).all()
    assert (split(np.zeros((2, 3), np.float32))[1] == 0).all()


def test_a_graph_computes_what_it_did() -> None:
    helper = onnx.helper
    weight = RNG.normal(size=(64, 64)).astype(np.float32)
    tensors = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 64]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    weights = [onnx.numpy_helper.from_array(v, n) for v, n in ((weight, "w"), (np.ones(64, np.float32), "b"))]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    small = compact(proto)
    onnx.checker.check_model(small)
    assert small.ByteSize() < 0.85 * proto.ByteSize()
    x = RNG.normal(size=(5, 64)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for one in (proto, small)
    )
    assert np.allclose(before, after, atol=1e-4)
