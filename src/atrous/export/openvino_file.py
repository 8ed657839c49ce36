"""A model as OpenVINO's pair of files, ``.xml`` and ``.bin``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atrous.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto


def write_openvino(proto: ModelProto, xml: Path) -> None:
    """Convert an ONNX graph with metadata and write both files; the metadata become ``rt_info``.

    Raises:
        InputError: OpenVINO can't convert the network.
    """
    import openvino

    core = openvino.Core()
    try:
        network = core.read_model(proto.SerializeToString())
    except RuntimeError as error:
        raise InputError(f"OpenVINO can't convert the network: {str(error).strip().splitlines()[-1]}") from error
    for entry in proto.metadata_props:
        network.set_rt_info(entry.value, entry.key)
    openvino.serialize(network, xml, xml.with_suffix(".bin"))
