"""A model as a program of ``torch.export`` (``.pt2``)."""

from __future__ import annotations

import io
import warnings

import torch

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
