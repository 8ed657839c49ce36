"""Caffe's ``.caffemodel`` files → models."""

from __future__ import annotations

from pathlib import Path

from atrous.convert.caffemodel import CaffeLayer, read_caffemodel
from atrous.convert.fcn import UPSAMPLING, fcn_from
from atrous.convert.source import ConversionError, Source
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel

ARCHITECTURES = tuple(UPSAMPLING)
"""What can be made of a ``.caffemodel``."""
_PARTS = {3: ("mean", "variance", "scale_factor")}  # of BatchNorm; other layers have a weight and perhaps a bias


def convert_caffe(
    file: str | Path, architecture: str, *, labels: LabelSet | None = None, inputs: str | None = None
) -> SegmentationModel:
    """Make a model of a released Caffe net: the same scores, for RGB photos, with its own mean colour.

    Args:
        file: a ``.caffemodel``; no other file is needed.
        architecture: what it holds, one of ``ARCHITECTURES``.
        labels: names of the classes; when left out, VOC's for 21, else numbers.
        inputs: what the net looks at, one of ``atrous.convert.fcn.INPUTS``; when left out, what the file tells.

    Returns:
        The model in eval mode; ``save`` makes a model folder of it.

    Raises:
        CaffeModelError: a file that can't be read.
        ConversionError: a file that holds something else.
        ValueError: an unknown architecture or input, or another number of labels than classes.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"a .caffemodel can become {', '.join(ARCHITECTURES)}, not '{architecture}'")
    model = fcn_from(_source(Path(file)), architecture, labels, inputs)
    model.card = {"converted_from": Path(file).name}
    return model


def _source(file: Path) -> Source:
    tensors = {}
    for layer in read_caffemodel(file):
        for name, blob in zip(_names(layer), layer.blobs, strict=True):
            if name in tensors:
                raise ConversionError(f"{file} has two layers '{layer.name}'")
            tensors[name] = blob
    return Source(file, tensors)


def _names(layer: CaffeLayer) -> list[str]:
    parts = _PARTS.get(len(layer.blobs)) or ("weight", "bias", *map(str, range(2, len(layer.blobs))))
    return [f"{layer.name}.{part}" for part in parts[: len(layer.blobs)]]
