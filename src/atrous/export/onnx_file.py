"""A model as one ONNX file."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from atrous.errors import InputError
from atrous.export.graph import Deployed, dynamic_shapes, example
from atrous.export.metadata import metadata
from atrous.export.openvino_file import write_openvino

if TYPE_CHECKING:
    from onnx import ModelProto

    from atrous.models.base import SegmentationModel

OPSET = 18
"""Of the standard operators; ONNX Runtime and its Web build, OpenVINO and TensorRT read it."""


def to_onnx(network: Deployed) -> ModelProto:
    """A network with probabilities as an ONNX graph for images of any number and size, simplified, without metadata.

    Raises:
        InputError: an operation of the network has no form that is right at every size; the message has the exporter's.
    """
    import onnx

    with _quiet():
        try:
            program = torch.onnx.export(
                network,
                (example(network.model),),
                dynamo=True,
                input_names=["image"],
                output_names=["labels", "probabilities"],
                dynamic_shapes=dynamic_shapes(),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises whatever the code of a network makes it raise
            raise not_exportable(network, error) from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return _simplified(proto)


def not_exportable(network: Deployed, error: Exception) -> InputError:
    """What to tell of a network that the exporter refuses."""
    model = network.model
    first = next((line for line in _causes(error) if line), type(error).__name__)
    return InputError(
        f"{model.name} on '{model.backbone.name}' can't be exported for every image size: {first}. Convolutional "
        "backbones of timm can (resnet, mobilenet, efficientnet, convnext, xception, vgg), and so can the papers' own"
    )


def _causes(error: BaseException | None) -> Iterator[str]:
    """First lines of the exceptions that led to one, the first of them first."""
    if error is not None:
        yield from _causes(error.__cause__)
        yield str(error).strip().partition("\n")[0]


def with_outputs(proto: ModelProto, names: Sequence[str]) -> ModelProto:
    """The graph with these outputs alone, and without what computes the others."""
    import onnx

    part = onnx.ModelProto()
    part.CopyFrom(proto)
    outputs = [output for output in part.graph.output if output.name in names]
    needed, nodes = set(names), []
    for node in reversed(part.graph.node):  # they are in the order of computation
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    weights = [weight for weight in part.graph.initializer if weight.name in needed]
    for field, entries in (("output", outputs), ("node", nodes[::-1]), ("initializer", weights)):
        kept = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        part.graph.ClearField(field)
        getattr(part.graph, field).extend(kept)
    return part


def write_graph(proto: ModelProto, model: SegmentationModel, file: Path) -> None:
    """Write a graph with a model's metadata, as ``.onnx`` or as OpenVINO's pair of files.

    Raises:
        InputError: OpenVINO can't convert the network, or it is too large for one ONNX file.
    """
    import onnx

    onnx.helper.set_model_props(proto, metadata(model))
    proto.producer_name = "atrous"
    if proto.ByteSize() >= 2**31:
        raise InputError(f"{model.name} is larger than the 2 GB of one ONNX file: take a smaller backbone")
    if file.suffix == ".onnx":
        file.write_bytes(proto.SerializeToString())
    else:
        write_openvino(proto, file)


def _simplified(proto: ModelProto) -> ModelProto:
    """Constants folded, batch norms and what else is linear merged into convolutions: ONNX Runtime's transformations
    that keep to standard operators.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.onnx"), Path(folder, "target.onnx")
        onnx.save(proto, source)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        simple = onnx.load(target)
    used = {node.domain for node in simple.graph.node}
    versions = [entry for entry in simple.opset_import if entry.domain in used]
    del simple.opset_import[:], simple.metadata_props[:], simple.graph.value_info[:]
    simple.opset_import.extend(versions)
    for node in simple.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return simple


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks are for its developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
