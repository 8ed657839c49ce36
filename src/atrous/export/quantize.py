"""int8: weights and activations of convolutions in 8 bits, with ranges seen on images (static quantisation)."""

from __future__ import annotations

import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atrous.data.dataset import Dataset, dataset_name
from atrous.errors import InputError
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.export.proof import Int8, Proof
from atrous.runtime.trial import TrialError, run_in_child

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

CALIBRATED, EVALUATED = 100, 200
"""Images of a dataset that are used at most, spread evenly over each half."""
TOLERATED = 0.5
"""Points of mean IoU that int8 may lose."""
_CHUNK = 32
"""Images that a child process holds at once."""


def halves(dataset: Dataset) -> tuple[list[int], list[int]]:
    """The images to calibrate with and those to evaluate on: every second one, so that both halves are alike.

    Raises:
        InputError: fewer than two images.
    """
    if len(dataset) < 2:
        raise InputError("int8 is calibrated with one half of the data and evaluated on the other: two images or more")
    return _spread(range(0, len(dataset), 2), CALIBRATED), _spread(range(1, len(dataset), 2), EVALUATED)


def _spread(indices: range, most: int) -> list[int]:
    return [indices[i * len(indices) // min(most, len(indices))] for i in range(min(most, len(indices)))]


def to_int8(graph: ModelProto, dataset: Dataset, indices: list[int]) -> ModelProto:
    """A graph whose convolutions compute in int8 (QDQ, a scale for each output channel), calibrated with images.

    ASPP's pooling branch and the last layers stay in float32: a single position has no range, and a logit's error is
    a label's. It is meant for processors with VNNI: those with AVX2 alone add two products in 16 bits, which overflow,
    and are not faster than in float32; the proof made there says so.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(indices)

        def get_next(self) -> dict[str, Any] | None:
            index = next(self.left, None)
            return None if index is None else {"image": np.ascontiguousarray(dataset[index].image[None])}

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})  # it is simplified
        onnx.save(graph, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "Clip"],  # with what follows: its range is the narrower one
            nodes_to_exclude=kept_in_float(graph.graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load(target)
    del quantized.graph.value_info[:]
    return quantized


def kept_in_float(graph: GraphProto) -> list[str]:
    """Names of the convolutions that stay in float32: those behind a global pool, and the last one on each path to an
    output.
    """
    producers = {name: node for node in graph.node for name in node.output}
    kept, seen = set(), set()
    ahead = [output.name for output in graph.output]
    while ahead:
        name = ahead.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            kept.add(node.name)
        else:
            ahead += node.input
    for node in graph.node:
        source = producers.get(node.input[0]) if node.op_type == "Conv" else None
        if source is not None and source.op_type in ("ReduceMean", "GlobalAveragePool"):
            kept.add(node.name)
    return sorted(kept)


def add_int8(proof: Proof, file: Path, plain: Path, dataset: Dataset, indices: list[int], calibrated: int) -> Proof:
    """A proof with the mean IoU of an int8 file beside that of the float32 file, in each runtime that ran.

    Args:
        proof: of the int8 file.
        file: the int8 file.
        plain: the float32 file.
        dataset: images and masks.
        indices: of those to evaluate on.
        calibrated: number of others that it was calibrated with.
    """
    runtimes = list(dict.fromkeys(c.runtime for c in proof.comparisons))
    if not runtimes:
        return replace(proof, good=False)
    reference = _mean_iou(plain, runtimes[0], dataset, indices)
    seen, failures = [], dict(proof.failures)
    for runtime in runtimes:
        try:
            found = _mean_iou(file, runtime, dataset, indices)
        except TrialError as error:
            failures[runtime] = str(error)
        else:
            seen.append(Int8(runtime, dataset_name(dataset), calibrated, len(indices), found, reference))
    good = bool(seen) and all(int8.lost <= TOLERATED for int8 in seen)
    return replace(proof, int8=tuple(seen), failures=failures, good=good)


def _mean_iou(file: Path, runtime: str, dataset: Dataset, indices: list[int]) -> float:
    confusion = ConfusionMatrix(dataset.label_set)
    for start in range(0, len(indices), _CHUNK):
        samples = [dataset[index] for index in indices[start : start + _CHUNK]]
        trial = run_in_child(file, runtime, [np.ascontiguousarray(s.image[None]) for s in samples], repeats=0)
        for sample, labels in zip(samples, trial.labels, strict=True):
            confusion.update(sample.mask, labels[0])
    return confusion.metrics().mean_iou
