"""The programs that run an exported file: ONNX Runtime and OpenVINO, behind one small interface."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

Runtime = Literal["onnxruntime", "openvino"]
"""The programs that can run an exported file, as their Python packages are called."""
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
READS: Mapping[str, tuple[Runtime, ...]] = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
"""The runtimes that read each kind of exported file, the one it is for first."""
INSTALL = "pip install 'atrous[export]'"


class ExportedModelError(InputError):
    """An exported model that can't be opened or run; the message names the file, what was expected, and the remedy."""


def is_exported(source: object) -> bool:
    """Whether a path has the ending of an exported model."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in READS


def is_installed(runtime: Runtime) -> bool:
    """Whether a runtime is installed; it is not imported for this."""
    return find_spec(runtime) is not None


class OnnxRuntime:
    """An ``.onnx`` file in ONNX Runtime, on the CPU.

    Attributes:
        metadata: the text stored in the file under each key.
        inputs: shape of each input by name, -1 for a side of any length.
        outputs: names of the outputs.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors are raised; warnings are about graphs, and the user has written none
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.inputs = {
            entry.name: tuple(side if isinstance(side, int) else -1 for side in entry.shape)
            for entry in self._session.get_inputs()
        }
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute some outputs of a batch of images ``(N, H, W, C)``; threads may call this at once."""
        results: list[NDArray[Any]] = self._session.run(list(outputs), {next(iter(self.inputs)): images})
        return results


class OpenVino:
    """An ``.onnx`` file, or an ``.xml`` with its ``.bin``, in OpenVINO, on the CPU, in float32.

    Attributes are those of :class:`OnnxRuntime`.
    """

    def __init__(self, file: Path) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(file))
        self.metadata = _openvino_metadata(model)
        # Its own choice would be bfloat16 where the processor announces it, which has failed on some that do.
        self._compiled = core.compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        )
        self.inputs = {
            port.any_name: tuple(-1 if side.is_dynamic else side.get_length() for side in port.partial_shape)
            for port in self._compiled.inputs
        }
        self.outputs = tuple(port.any_name for port in self._compiled.outputs)
        self._requests = threading.local()  # a request holds the buffers of one run

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute some outputs of a batch of images ``(N, H, W, C)``; threads may call this at once."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        results = self._requests.own.infer([images])
        return [np.array(results[name]) for name in outputs]


Engine = OnnxRuntime | OpenVino


def open_engine(file: Path, runtime: Runtime) -> Engine:
    """Open a file in a runtime.

    Raises:
        ImportError: the runtime is not installed.
        Exception: whatever the runtime has to say of a file that it can't read.
    """
    return OnnxRuntime(file) if runtime == "onnxruntime" else OpenVino(file)


def _openvino_metadata(model: Any) -> dict[str, str]:
    """What is stored in a model as its own key, or, in one read from ONNX, as metadata of the framework."""
    for place in (["atrous"], ["framework", "atrous"]):
        if model.has_rt_info(place):
            return {"atrous": str(model.get_rt_info(place).value)}
    return {}
