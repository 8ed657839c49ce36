"""Converting state dicts of PyTorch implementations to models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from atrous.errors import kind_of
from atrous.labels import LabelSet
from atrous.models.backbones.weights import read_weights
from atrous.models.base import SegmentationModel

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""Keys of the weights in files that contain an optimizer, too."""
_PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.")
"""What torch.compile, DataParallel, and the attributes of Lightning modules put in front of all names."""
_ZIP, _PICKLE = b"PK", b"\x80"
_OTHERS = {b"\x89HDF": "an HDF5 file, such as Keras writes"}
_EXPECTED = "expected tensors whose names are strings, such as 'conv1.weight'"
_FIX = "in the program that wrote it, save only the weights: torch.save(model.state_dict(), 'weights.pth')"
_MORE = "it contains other objects than tensors, and code in a file is never run"
_DAMAGED = "it is truncated or damaged"


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
    """Convert a state dict with another program's names to a model with the same logits, for RGB images.

    Args:
        file: a PyTorch file (no code in it is run) or safetensors.
        architecture: the file's architecture.
        layout: whose names these are, one of ``atrous.convert.layouts.LAYOUTS``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        inputs: inputs of an FCN, one of :data:`atrous.convert.architectures.fcn.INPUTS`.
        rates: rates of a DeepLab's branches; by default the published ones.
        scales: image scales of a DeepLab with ASPP; by default those it was trained with.

    Returns:
        The model in eval mode; its ``save`` writes a model folder.

    Raises:
        ConversionError: the file can't be read, or contains another network.
        InputError: as for :func:`atrous.convert.layouts.build_model`.
    """
    return build_model(
        read_state_dict(Path(file)),
        architecture,
        layout,
        label_set=label_set,
        inputs=inputs,
        rates=rates,
        scales=scales,
    )


def read_state_dict(file: Path) -> FileTensors:
    """The tensors of a PyTorch or safetensors file; what else is in it is left out.

    Raises:
        ConversionError: the file can't be read, or contains no state dict.
    """
    found = _read(file)
    wrapper = next(
        (key for key in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)), None
    )
    weights = found[wrapper] if wrapper else found
    if not isinstance(weights, Mapping):
        raise ConversionError(f"{file} contains no state dict: {_EXPECTED}, found {kind_of(weights)}; {_FIX}")
    others = [
        f"{k!r}: {type(v).__name__}" for k, v in weights.items() if not isinstance(k, str) or not isinstance(v, Tensor)
    ]
    if others or not weights:
        said = listed(others) if others else "nothing"
        raise ConversionError(f"{file} contains no state dict: {_EXPECTED}, found {said}; {_FIX}")
    beside = [str(key) for key in found if key != wrapper] if wrapper else []
    named, others, changes = _without_prefixes(weights)
    return FileTensors(file, named, left_out=beside + others, changes=changes)


def _without_prefixes(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors without what wrappers put in front of their names, the names of others beside the network, such as a
    loss's, and what was changed.
    """
    others: list[str] = []
    changes: list[str] = []
    while prefix := next((p for p in _PREFIXES if 2 * sum(map(p.__eq__, _starts(weights))) > len(weights)), None):
        others += [name for name in weights if not name.startswith(prefix)]
        weights = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
        changes.append(f"the prefix '{prefix}' was taken off the names of its tensors")
    compiled = f".{_PREFIXES[0]}"  # a part of the network that was compiled alone
    if any(compiled in name for name in weights):
        weights = {name.replace(compiled, "."): tensor for name, tensor in weights.items()}
        changes.append(f"'{_PREFIXES[0]}' was taken out of the names of its tensors")
    return dict(weights), others, changes


def _starts(names: Iterable[str]) -> Iterator[str]:
    return (f"{name.partition('.')[0]}." for name in names)


def _read(file: Path) -> Any:
    with file.open("rb") as stream:
        beginning = stream.read(SIGNATURE_BYTES)
    if not beginning:
        raise ConversionError(f"{file} is empty")
    if kind := describe_signature(beginning, _OTHERS):
        raise ConversionError(f"{file} is not a file of PyTorch weights but {kind}")
    named = file.suffix == ".safetensors"
    if is_safetensors(beginning) and not named:
        raise ConversionError(f"{file} is a safetensors file: rename it to end in .safetensors")
    if named and beginning.startswith((_ZIP, _PICKLE)):
        raise ConversionError(f"{file} is a PyTorch file, not safetensors: rename it to end in .pth")
    try:
        with catch_warnings(action="ignore"):  # torch advises to call torch.jit.load, which runs code in the file
            return read_weights(file)
    except SafetensorError as error:
        raise ConversionError(f"{file} is not a safetensors file, or truncated: {error}") from error
    except OSError as error:
        if error.filename:  # an error of the file system, not of the file's contents
            raise
        raise ConversionError(f"{file} can't be read as PyTorch weights: {_DAMAGED}") from error
    except Exception as error:  # for damaged bytes, torch raises errors of any type
        refused = isinstance(error, UnpicklingError) and error.__cause__ is None
        why = _in_zip(file, refused) if beginning.startswith(_ZIP) else _in_pickle(beginning, refused)
        raise ConversionError(f"{file} can't be read as PyTorch weights: {why}") from error


def _in_zip(file: Path, refused: bool) -> str:
    """Why torch did not read a zip file; its own message advises to run code in the file."""
    try:
        with ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # as above: a damaged directory raises errors of any type
        return _DAMAGED
    inner = {name.partition("/")[2] for name in names}
    if "data.pkl" not in inner:
        return f"it is a zip file with other contents: {listed(names)}"
    if "constants.pkl" in inner:
        return f"it is a TorchScript archive, which contains code; {_FIX}"
    if not refused:
        return _DAMAGED
    with suppress(Exception):
        if objects := sorted(get_unsafe_globals_in_checkpoint(str(file))):
            return f"{_MORE}: {listed(objects)}; {_FIX}"
    return f"{_MORE}; {_FIX}"


def _in_pickle(beginning: bytes, refused: bool) -> str:
    if not beginning.startswith(_PICKLE):
        return "torch.save did not write it"
    return f"{_MORE if refused else f'{_DAMAGED}, or a pickle that torch.save did not write'}; {_FIX}"
