"""State dicts of PyTorch reproductions → models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings
from zipfile import ZipFile

from safetensors import SafetensorError
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from atrous.convert.formats.signatures import SIGNATURE_BYTES, describe_signature, is_safetensors
from atrous.convert.layouts import build_model
from atrous.convert.tensors import ConversionError, FileTensors, listed
from atrous.labels import LabelSet
from atrous.models.backbones.weights import read_weights
from atrous.models.base import SegmentationModel

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""Under which a file that holds an optimizer too keeps its weights."""
_ZIP, _PICKLE = b"PK", b"\x80"
_OTHERS = {b"\x89HDF": "an HDF5 file, as Keras writes them"}
_EXPECTED = "expected tensors by names that are texts, such as 'conv1.weight'"
_MEND = "where it was made, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
_MORE = "it holds more than tensors as torch.save writes them, and nothing in a file is run"
_DAMAGED = "it is cut short or damaged"


def convert_pytorch(
    file: str | Path,
    architecture: str,
    layout: str,
    *,
    label_set: LabelSet | None = None,
    inputs: str | None = None,
    rates: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
) -> SegmentationModel:
    """Make a model of a state dict in another program's names: the same scores, for RGB images.

    Args:
        file: a PyTorch file (nothing in it is run) or safetensors.
        architecture: what it holds.
        layout: whose names these are, one of ``atrous.convert.layouts.LAYOUTS``.
        label_set: names of the classes; when left out, those of the released net with as many, or numbers.
        inputs: what an FCN looks at, one of :data:`atrous.convert.architectures.fcn.INPUTS`.
        rates: of a DeepLab's branches; when left out, the published ones.
        scales: of the image, for a DeepLab's ASPP; when left out, those it was trained with.

    Returns:
        The model in eval mode; ``save`` makes a model folder of it.

    Raises:
        ConversionError: a file that can't be read, or that holds something else.
        ValueError: as :func:`atrous.convert.layouts.build_model` has it.
    """
    return build_model(
        _source(Path(file)), architecture, layout, label_set=label_set, inputs=inputs, rates=rates, scales=scales
    )


def _source(file: Path) -> FileTensors:
    found = _read(file)
    wrapper = next(
        (key for key in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)), None
    )
    weights = found[wrapper] if wrapper else found
    if not isinstance(weights, Mapping):
        raise ConversionError(f"{file} holds no state dict: {_EXPECTED}, found a {type(weights).__name__}; {_MEND}")
    others = [
        f"{k!r}: {type(v).__name__}" for k, v in weights.items() if not isinstance(k, str) or not isinstance(v, Tensor)
    ]
    if others or not weights:
        said = listed(others) if others else "nothing"
        raise ConversionError(f"{file} holds no state dict: {_EXPECTED}, found {said}; {_MEND}")
    beside = [str(key) for key in found if key != wrapper] if wrapper else []
    return FileTensors(
        file, {name.removeprefix("module."): tensor for name, tensor in weights.items()}, left_out=beside
    )


def _read(file: Path) -> Any:
    with file.open("rb") as stream:
        beginning = stream.read(SIGNATURE_BYTES)
    if not beginning:
        raise ConversionError(f"{file} is empty")
    if kind := describe_signature(beginning, _OTHERS):
        raise ConversionError(f"{file} holds no weights of PyTorch: it is {kind}")
    named = file.suffix == ".safetensors"
    if is_safetensors(beginning) and not named:
        raise ConversionError(f"{file} is a safetensors file: give it a name that ends in .safetensors")
    if named and beginning.startswith((_ZIP, _PICKLE)):
        raise ConversionError(f"{file} is a PyTorch file, no safetensors: give it a name that ends in .pth")
    try:
        with catch_warnings(action="ignore"):  # torch advises to call torch.jit.load, which runs what is in there
            return read_weights(file)
    except SafetensorError as error:
        raise ConversionError(f"{file} is no safetensors file, or cut short: {error}") from error
    except OSError as error:
        if error.filename:  # the system's, not the file's
            raise
        raise ConversionError(f"{file} can't be read as PyTorch weights: {_DAMAGED}") from error
    except Exception as error:  # what torch says of damaged bytes has no end of types
        refused = isinstance(error, UnpicklingError) and error.__cause__ is None
        why = _in_zip(file, refused) if beginning.startswith(_ZIP) else _in_pickle(beginning, refused)
        raise ConversionError(f"{file} can't be read as PyTorch weights: {why}") from error


def _in_zip(file: Path, refused: bool) -> str:
    """Why torch did not read a zip file. Its own words advise to run what is in there."""
    try:
        with ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # as above: a damaged directory ends in any type
        return _DAMAGED
    inner = {name.partition("/")[2] for name in names}
    if "data.pkl" not in inner:
        return f"it is a zip file of other things: {listed(names)}"
    if "constants.pkl" in inner:
        return f"it is a TorchScript archive, which has a program in it; {_MEND}"
    if not refused:
        return _DAMAGED
    with suppress(Exception):
        if objects := sorted(get_unsafe_globals_in_checkpoint(str(file))):
            return f"{_MORE}: {listed(objects)}; {_MEND}"
    return f"{_MORE}; {_MEND}"


def _in_pickle(beginning: bytes, refused: bool) -> str:
    if not beginning.startswith(_PICKLE):
        return "it is none of the files that torch.save writes"
    return f"{_MORE if refused else f'{_DAMAGED}, or a pickle that torch.save did not write'}; {_MEND}"
