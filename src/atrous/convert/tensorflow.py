"""DeepLabv3 and v3+ of the authors, from TensorFlow (github.com/tensorflow/models, research/deeplab).

Names are those of the variables' scopes: ``MobilenetV2/expanded_conv_1/expand``, ``aspp0``, ``logits/semantic``. Their
batch norm is ``BatchNorm`` within. All networks see photos from −1 to 1, and pad as TensorFlow's "SAME" does, which is
what PyTorch does for pictures of 32k + 1 pixels (257, 513).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.convert.deeplabv3 import Naming, deeplabv3_from, mobilenetv2, mobilenetv2_place
from atrous.convert.source import ConversionError, Source
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel

MOBILENET_EPS, HEAD_EPS = 1e-3, 1e-5
"""What batch norm adds to a variance, in the trunk and in the head."""
_OURS = {"OHWI": (0, 3, 1, 2), "1HWC": (3, 0, 1, 2)}
"""Orders of the axes of TFLite's convolutions, ordinary and depthwise, to have them as PyTorch has."""


def convert_tflite_arrays(file: str | Path, *, labels: LabelSet | None = None) -> SegmentationModel:
    """Make a model of the arrays of a TFLite network: DeepLabv3 on MobileNetV2, batch norm folded into the biases.

    Args:
        file: an ``.npz`` of arrays ``00.weight``, ``00.bias``, ``01.weight`` …, with a ``.json`` of the same name
            beside it: a list of layers, each with its number ``i``, the name ``tensor`` of its weights, their
            ``layout`` (``OHWI`` or ``1HWC``) and its ``stride``.
        labels: names of the classes; when left out, those of the released net with as many, or numbers.

    Returns:
        The model in eval mode. Its batch norm only adds.

    Raises:
        ConversionError: files that can't be read, or that hold something else.
        ValueError: another number of labels than classes.
    """
    file = Path(file)
    source, output_stride = _read_arrays(file)
    naming = _mobilenetv2(source)._replace(output_stride=output_stride)
    model = deeplabv3_from(source, "deeplabv3", naming, labels, None)
    model.card = {"converted_from": file.name}
    return model


def _read_arrays(file: Path) -> tuple[Source, int]:
    """The arrays by names and in forms as PyTorch has them, and the network's output stride."""
    list_file = file.with_suffix(".json")
    tensors: dict[str, NDArray[Any]] = {}
    output_stride = 1
    try:
        layers = json.loads(list_file.read_text(encoding="utf-8"))
        with np.load(file) as arrays:
            for layer in layers:
                scope = layer["tensor"].partition(";")[0].rpartition("/")[0]
                weight, bias = (arrays[f"{layer['i']:02}.{kind}"] for kind in ("weight", "bias"))
                tensors[f"{scope}.weight"] = weight.transpose(_OURS[layer["layout"]])
                tensors |= {f"{scope}.bias": bias} if scope.startswith("logits") else dict(_adding(scope, bias))
                output_stride *= layer["stride"][0]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{file} and {list_file.name} are no arrays of a TFLite network: {error!r}") from error
    return Source(file, tensors), output_stride


def _adding(scope: str, bias: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """A batch norm that adds a bias and does nothing else."""
    eps = MOBILENET_EPS if scope.startswith("MobilenetV2") else HEAD_EPS
    values = {"weight": np.ones_like(bias), "bias": bias, "running_mean": np.zeros_like(bias)}
    for kind, value in (values | {"running_var": np.full_like(bias, 1 - eps)}).items():
        yield f"{scope}/BatchNorm.{kind}", value


def _mobilenetv2(source: Source) -> Naming:
    """MobileNetV2 as released for segmentation: image pooling beside a 1×1 convolution, no decoder. Narrower ones have
    12 channels where others, rounding to multiples of eight, have 16.
    """
    backbone = mobilenetv2(source, "MobilenetV2/expanded_conv_16/project.weight")
    head = {"classifier": "logits/semantic"}
    for ours, theirs in _UNITS.items():
        head |= _unit(ours, theirs)
    return Naming(backbone, _mobilenetv2_layer, head, {"rates": ()}, eps=MOBILENET_EPS, narrow=True)


def _mobilenetv2_layer(layer: str) -> str:
    if not layer.startswith("blocks"):
        return "MobilenetV2/Conv" if layer == "conv_stem" else "MobilenetV2/Conv/BatchNorm"
    number, part, norm = mobilenetv2_place(layer)
    block = f"expanded_conv_{number}" if number else "expanded_conv"
    return f"MobilenetV2/{block}/{('expand', 'depthwise', 'project')[part]}{'/BatchNorm' if norm else ''}"


_UNITS = {"aspp.pooled": "image_pooling", "aspp.pointwise": "aspp0", "aspp.project": "concat_projection"}


def _unit(ours: str, theirs: str, first: int = 0) -> dict[str, str]:
    return {f"{ours}.{first}": theirs, f"{ours}.{first + 1}": f"{theirs}/BatchNorm"}
