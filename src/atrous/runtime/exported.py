"""Exported models: files that label images without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.runtime.engines import INSTALL, READS, Engine, ExportedModelError, Runtime, is_installed, open_engine

IMAGE, LABELS, PROBABILITIES = "image", "labels", "probabilities"
"""Names of the input and the outputs of an exported model."""
METADATA = "atrous"
"""The metadata key under which the file stores the ``config.json`` of its model, as text."""


class ExportedModel:
    """A model that ``atrous export`` wrote, opened in a runtime. Threads may share one.

    Everything from the uint8 image to the labels is inside the file, so that nothing can be set here but what it is
    applied to.

    Args:
        file: the ``.onnx`` or ``.xml`` file.
        runtime: what runs it.
        engine: the file opened in it.

    Attributes:
        label_set: names and colours of the classes.
        card: the ``config.json`` of the model that was exported.

    Raises:
        ExportedModelError: the file was not exported by this package, or has other inputs or outputs than its models.
    """

    def __init__(self, file: Path, runtime: Runtime, engine: Engine) -> None:
        self.file, self.runtime = file, runtime
        self._engine = engine
        self.card = _read_card(file, engine)
        try:
            self.label_set = LabelSet.from_dict(self.card["label_set"])
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise ExportedModelError(f"{file}: its classes can't be read ({error!r}); export it again") from error
        _check_ports(file, engine)

    def __repr__(self) -> str:
        return f"ExportedModel({str(self.file)!r}, {len(self.label_set)} classes, in {self.runtime})"

    @property
    def name(self) -> str:
        """The architecture."""
        return str(self.card.get("architecture", self.file.stem))

    @property
    def num_classes(self) -> int:
        """The number of real classes."""
        return len(self.label_set)

    @property
    def output_stride(self) -> int | None:
        """The output stride that the network was exported at."""
        return self.card.get("output_stride")

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        channels = self._engine.inputs[IMAGE][-1]
        return channels if channels > 0 else int(self.card.get("in_channels", 3))

    @property
    def has_probabilities(self) -> bool:
        """Whether the file also computes class probabilities."""
        return PROBABILITIES in self._engine.outputs

    def labels(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Find the class of every pixel of some images of one size.

        Args:
            images: uint8 RGB ``(N, H, W, 3)``; ``(N, H, W, C)`` for a network of other input channels.

        Returns:
            uint8 ``(N, H, W)``.

        Raises:
            InputError: another shape or dtype.
            ExportedModelError: the runtime failed.
        """
        return self._run(images, [LABELS])[0]

    def labels_and_probabilities(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Find the class of every pixel of some images, and the probability of every class.

        Args:
            images: as for :meth:`labels`.

        Returns:
            Labels uint8 ``(N, H, W)``, and probabilities float32 ``(N, C, H, W)``, which sum to 1.

        Raises:
            InputError: another shape or dtype.
            ExportedModelError: the file computes no probabilities, or the runtime failed.
        """
        if not self.has_probabilities:
            raise ExportedModelError(
                f"{self.file} computes labels alone, and this needs class probabilities: export the model again with "
                "--probabilities"
            )
        labels, probabilities = self._run(images, [LABELS, PROBABILITIES])
        return labels, probabilities

    def _run(self, images: NDArray[np.uint8], outputs: list[str]) -> list[NDArray[Any]]:
        channels = self.in_channels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != channels or not images.size:
            raise InputError(
                f"expected images as uint8 (N, H, W, {channels}) with values 0–255, not {images.dtype} {images.shape}"
            )
        try:
            return self._engine.run(np.ascontiguousarray(images), outputs)
        except MemoryError:
            raise
        except Exception as error:  # each runtime has exceptions of its own
            raise ExportedModelError(
                f"{self.file}: {self.runtime} failed on images {images.shape}: {_first_line(error)}"
            ) from error


def open_exported(file: str | Path, runtime: Runtime | None = None) -> ExportedModel:
    """Open an exported model.

    Args:
        file: ``.onnx``, or the ``.xml`` of OpenVINO, whose ``.bin`` lies beside it.
        runtime: ``onnxruntime`` or ``openvino``; by default the first installed one of those that read the file
            (ONNX Runtime for ``.onnx``).

    Raises:
        ExportedModelError: the file is missing, damaged or not an exported model of this package, or the runtime is
            not installed or does not read it.
    """
    file = Path(file)
    chosen = _runtime_for(file, runtime)
    if not file.is_file():
        raise ExportedModelError(f"{file}: no such file; check the name")
    try:
        engine = open_engine(file, chosen)
    except ImportError as error:
        raise ExportedModelError(f"{file}: {chosen} can't be imported ({error}): {INSTALL}") from error
    except Exception as error:  # each runtime has exceptions of its own
        raise ExportedModelError(
            f"{file} can't be opened by {chosen}: {_first_line(error)}; export the model again"
        ) from error
    return ExportedModel(file, chosen, engine)


def _runtime_for(file: Path, runtime: Runtime | None) -> Runtime:
    able = READS.get(file.suffix.lower(), ())
    if not able:
        raise ExportedModelError(f"{file}: an exported model ends in {' or '.join(READS)}")
    if runtime is not None and runtime not in able:
        raise ExportedModelError(f"{file} is run by {' or '.join(able)}, not by {runtime}")
    wanted = able if runtime is None else (runtime,)
    for candidate in wanted:
        if is_installed(candidate):
            return candidate
    raise ExportedModelError(f"{file} is run by {' or '.join(wanted)}, which is not installed: {INSTALL}")


def _read_card(file: Path, engine: Engine) -> dict[str, Any]:
    if METADATA not in engine.metadata:
        raise ExportedModelError(
            f"{file} was not exported by atrous (it has no metadata '{METADATA}'); make one with `atrous export`"
        )
    try:
        card = json.loads(engine.metadata[METADATA])
    except (ValueError, RecursionError) as error:
        raise ExportedModelError(f"{file}: its metadata '{METADATA}' is damaged ({error}); export it again") from error
    if not isinstance(card, dict):
        raise ExportedModelError(f"{file}: its metadata '{METADATA}' is not a JSON object; export it again")
    return card


def _check_ports(file: Path, engine: Engine) -> None:
    if list(engine.inputs) != [IMAGE] or LABELS not in engine.outputs:
        raise ExportedModelError(
            f"{file} has the inputs {', '.join(engine.inputs)} and the outputs {', '.join(engine.outputs)}; expected "
            f"{IMAGE} and {LABELS}: export it again"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
