"""A model as a program of ``torch.export`` (``.pt2``)."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atrous.export.graph import Deployed, dynamic_shapes, example
from atrous.export.metadata import metadata
from atrous.export.onnx_file import not_exportable


def to_torch(network: Deployed) -> bytes:
    """A network as the bytes of a ``.pt2`` file, with its metadata as extra files.

    Raises:
        InputError: an operation of the network has no form that is right at every size; the message has the exporter's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(network, (example(network.model),), dynamic_shapes=dynamic_shapes())
        except Exception as error:  # the exporter raises whatever the code of a network makes it raise
            raise not_exportable(network, error) from error
        data = io.BytesIO()
        torch.export.save(program, data, extra_files=metadata(network.model))
    return data.getvalue()


class TorchProgram:
    """A ``.pt2`` file, opened.

    Attributes:
        in_channels: channels of an image.
        has_probabilities: whether it also computes class probabilities.
    """

    def __init__(self, file: str | Path, _: str = "torch") -> None:
        program = torch.export.load(file)
        (image,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
        self.in_channels = int(image.meta["val"].shape[-1])
        self.has_probabilities = len(program.graph_signature.user_outputs) > 1
        self._network = program.module()

    def labels(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Find the class of every pixel: uint8 ``(N, H, W, C)`` → uint8 ``(N, H, W)``."""
        return self._run(images)[0]

    def labels_and_probabilities(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The same, and the probability of every class, float32 ``(N, classes, H, W)``."""
        labels, probabilities = self._run(images)
        return labels, probabilities

    def _run(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [output.numpy() for output in self._network(torch.from_numpy(images))]
