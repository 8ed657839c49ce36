"""Converting Caffe's ``.caffemodel`` files to models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from atrous.convert.formats.caffemodel import Array, CaffeLayer, read_caffemodel
from atrous.convert.layouts import build_model
from atrous.convert.tensors import ConversionError, FileTensors
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel

_COPIES = {"_res075": 0.75, "_res05": 0.5}
"""Name suffixes of DeepLab v2's layers for smaller images, which share their parameters with the others."""


def convert_caffe(
    file: str | Path,
    architecture: str,
    *,
    label_set: LabelSet | None = None,
    inputs: str | None = None,
    rates: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
) -> SegmentationModel:
    """Convert a released Caffe net to a model with the same logits, for RGB images and with the net's mean colour.

    Args:
        file: a ``.caffemodel``; no other file is needed.
        architecture: the file's architecture: an FCN, ``deeplab_largefov`` or ``deeplab_aspp``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        inputs: inputs of an FCN, one of ``atrous.convert.architectures.fcn.INPUTS``; found from the file by default.
        rates: rates of a DeepLab's branches; by default the published ones.
        scales: image scales of a DeepLab with ASPP; by default those it was trained with.

    Returns:
        The model in eval mode; its ``save`` writes a model folder.

    Raises:
        CaffeModelError: the file can't be read.
        ConversionError: the file contains another network.
        InputError: as for :func:`atrous.convert.layouts.build_model`.
    """
    return build_model(
        read_source(Path(file)), architecture, "caffe", label_set=label_set, inputs=inputs, rates=rates, scales=scales
    )


def read_source(file: Path) -> FileTensors:
    """The tensors of a ``.caffemodel``, each named after its layer.

    Raises:
        CaffeModelError: the file can't be read.
        ConversionError: two layers have one name, or layers for smaller images have parameters of their own.
    """
    layers: dict[str, CaffeLayer] = {}
    for layer in read_caffemodel(file):
        if layer.name in layers:
            raise ConversionError(f"{file} has two layers named '{layer.name}'")
        layers[layer.name] = layer
    scales = (1.0, *(scale for end, scale in _COPIES.items() if any(name.endswith(end) for name in layers)))
    for name in [name for name in layers if name.endswith(tuple(_COPIES))]:
        original = layers.get(name.rpartition("_")[0])
        if not (original and all(map(np.array_equal, original.blobs, layers[name].blobs))):
            raise ConversionError(f"{file}: {name} should share its parameters with {name.rpartition('_')[0]}")
        del layers[name]
    tensors = {f"{layer.name}.{part}": blob for layer in layers.values() for part, blob in _parts(layer)}
    return FileTensors(file, tensors, scales)


def _parts(layer: CaffeLayer) -> Iterator[tuple[str, Array]]:
    """The arrays of a layer by their names in PyTorch; batch norm's are sums, and the third array is their count."""
    if len(layer.blobs) == 3 and layer.blobs[2].size == 1:
        factor = layer.blobs[2].item()
        for name, blob in zip(("running_mean", "running_var"), layer.blobs, strict=False):
            yield name, blob / factor if factor else np.zeros_like(blob)
        return
    yield from zip(("weight", "bias", *map(str, range(2, len(layer.blobs)))), layer.blobs, strict=False)
