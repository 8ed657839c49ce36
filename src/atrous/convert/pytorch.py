"""State dicts of PyTorch reproductions → models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from atrous.convert.build import build
from atrous.convert.source import ConversionError, Source
from atrous.labels import LabelSet
from atrous.models.backbones import read_weights
from atrous.models.base import SegmentationModel

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""Under which a file that holds an optimizer too keeps its weights."""


def convert_pytorch(
    file: str | Path,
    architecture: str,
    layout: str,
    *,
    labels: LabelSet | None = None,
    inputs: str | None = None,
    rates: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
) -> SegmentationModel:
    """Make a model of a state dict in another program's names: the same scores, for RGB photos.

    Args:
        file: a PyTorch file (nothing in it is run) or safetensors.
        architecture: what it holds.
        layout: whose names these are, one of ``atrous.convert.build.LAYOUTS``.
        labels: names of the classes; when left out, those of the released net with as many, or numbers.
        inputs: what an FCN looks at, one of :data:`atrous.convert.fcn.INPUTS`.
        rates: of a DeepLab's branches; when left out, the published ones.
        scales: of the picture, for a DeepLab's ASPP; when left out, those it was trained with.

    Returns:
        The model in eval mode; ``save`` makes a model folder of it.

    Raises:
        ConversionError: a file that can't be read, or that holds something else.
        ValueError: as :func:`atrous.convert.build.build` has it.
    """
    return build(_source(Path(file)), architecture, layout, labels=labels, inputs=inputs, rates=rates, scales=scales)


def _source(file: Path) -> Source:
    try:
        found: Any = read_weights(file)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, SafetensorError, UnpicklingError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ConversionError(f"{file} can't be read as PyTorch weights or safetensors: {reason}") from error
    wrapper = next(
        (key for key in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)), None
    )
    weights = found[wrapper] if wrapper else found
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ConversionError(f"{file} holds no state dict: expected tensors by their names")
    return Source(file, {name.removeprefix("module."): tensor for name, tensor in weights.items()})
