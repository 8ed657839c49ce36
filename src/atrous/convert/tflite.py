"""Converting the arrays of a TFLite network: DeepLabv3 on MobileNetV2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from atrous.convert.architectures.deeplabv3 import deeplabv3_from
from atrous.convert.formats.signatures import SIGNATURE_BYTES
from atrous.convert.tensorflow import HEAD_EPS, MOBILENET_EPS, mobilenetv2_naming
from atrous.convert.tensors import ConversionError, FileTensors, MissingPartError, listed
from atrous.data.files.limits import DecodeLimitError, read_arrays
from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.models.base import Preprocessing, SegmentationModel

_OURS = {"OHWI": (0, 3, 1, 2), "1HWC": (3, 0, 1, 2)}
"""Axis orders of TFLite's convolutions, ordinary and depthwise, transposed to PyTorch's."""


def convert_tflite_arrays(file: str | Path, *, label_set: LabelSet | None = None) -> SegmentationModel:
    """Convert the arrays of a TFLite DeepLabv3 on MobileNetV2, whose batch norm is folded into the biases.

    Args:
        file: an ``.npz`` of arrays ``00.weight``, ``00.bias``, ``01.weight``, ..., with a ``.json`` of the same name
            beside it: a list of layers, each with its index ``i``, the name ``tensor`` of its weights, their ``layout``
            (``OHWI`` or ``1HWC``) and its ``stride``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.

    Returns:
        The model in eval mode. Its batch norm only adds the biases.

    Raises:
        ConversionError: the files can't be read, or contain another network.
        MissingPartError: a file is missing.
        InputError: the number of labels is not that of classes.
    """
    file = Path(file)
    source, output_stride, quantised = _read_arrays(file)
    naming = mobilenetv2_naming(source)._replace(output_stride=output_stride)
    if quantised:
        naming = naming._replace(preprocessing=_QUANTISED)
    model = deeplabv3_from(source, "deeplabv3", naming, label_set, None)
    model.card = source.card()
    return model


class _Layer(BaseModel):
    """The needed facts of a layer in the list."""

    i: int
    tensor: str
    layout: Literal["OHWI", "1HWC"]
    stride: tuple[int, int]


_LAYERS = TypeAdapter(Annotated[list[_Layer], Field(min_length=1)])
_LAYER = '{"i": 0, "tensor": "MobilenetV2/Conv/weights", "layout": "OHWI", "stride": [2, 2]}'


_QUANTISED = Preprocessing((128 / 255,) * 3, (128 / 255,) * 3)
"""(x − 128) / 128, the input of an 8-bit network: its biases are multiples of 1/128 times the weights' steps."""


def _read_arrays(file: Path) -> tuple[FileTensors, int, bool]:
    """The arrays with PyTorch's names and shapes, the output stride, and whether the network was made for 8 bits."""
    list_file = file.with_suffix(".json")
    if file == list_file:
        raise ConversionError(f"{file} is the list of a network's layers: name the .npz file of its arrays")
    for part in (file, list_file):
        if not part.exists():
            raise MissingPartError(
                f"{part} is missing: the arrays (.npz) and the list of their layers (.json) must have the same name"
            )
    arrays, layers = _arrays(file), _layers(list_file)
    tensors: dict[str, NDArray[Any]] = {}
    output_stride = 1
    names = [f"{layer.i:02}.{kind}" for layer in layers for kind in ("weight", "bias")]
    if missing := [name for name in names if name not in arrays]:
        raise ConversionError(
            f"{file} and {list_file.name} are not the arrays of a TFLite network: {len(missing)} missing: "
            f"{listed(missing)}; found {listed(list(arrays))}"
        )
    for layer in layers:
        scope = layer.tensor.partition(";")[0].rpartition("/")[0]
        weight, bias = (arrays[f"{layer.i:02}.{kind}"] for kind in ("weight", "bias"))
        if weight.ndim != 4:
            raise ConversionError(
                f"{file}: {layer.i:02}.weight has {weight.ndim} dimensions, expected 4 ({layer.layout})"
            )
        tensors[f"{scope}.weight"] = weight.transpose(_OURS[layer.layout])
        tensors |= {f"{scope}.bias": bias} if scope.startswith("logits") else dict(_adding(scope, bias))
        output_stride *= layer.stride[0]
    return FileTensors(file, tensors), output_stride, any("FakeQuant" in layer.tensor for layer in layers)


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    with file.open("rb") as stream:
        beginning = stream.read(SIGNATURE_BYTES)
    tflite = ": it is a TFLite network, whose arrays must be extracted first" * (beginning[4:8] == b"TFL3")
    if tflite or not is_zipfile(file):
        raise ConversionError(f"{file} is not an .npz file of numpy, or truncated{tflite}")
    try:
        arrays = read_arrays(file)
    except DecodeLimitError as error:
        raise ConversionError(f"{file} contains {error}") from error
    except (InputError, OSError) as error:
        # numpy's own message advises to allow pickles, which run code.
        raise ConversionError(f"{file} contains other objects than arrays of numbers, or is damaged") from error
    if others := [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]:
        raise ConversionError(f"{file} contains other objects than arrays of numbers: {listed(others)}")
    return arrays


def _layers(list_file: Path) -> list[_Layer]:
    try:
        return _LAYERS.validate_json(list_file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise ConversionError(
            f"{list_file} is not a list of a network's layers: {place}{': ' if place else ''}{first['msg']}; expected "
            f"[{_LAYER}, ...]"
        ) from error


def _adding(scope: str, bias: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """A batch norm that only adds a bias."""
    eps = MOBILENET_EPS if scope.startswith("MobilenetV2") else HEAD_EPS
    values = {"weight": np.ones_like(bias), "bias": bias, "running_mean": np.zeros_like(bias)}
    for kind, value in (values | {"running_var": np.full_like(bias, 1 - eps)}).items():
        yield f"{scope}/BatchNorm.{kind}", value
