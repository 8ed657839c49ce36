"""The bundled models, and finding a model by name, folder or hub id."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from atrous.bundle import BUNDLE, bundled
from atrous.labels import LabelSet
from atrous.models.base import Preprocessing, SegmentationModel
from atrous.models.checkpoint import CheckpointError, find_not_finite, read_folder
from atrous.models.create import create_model
from atrous.models.model_config import limited_to

MENTIONED = 10
"""Maximum number of folders that an error lists."""


def load(source: str | Path) -> SegmentationModel:
    """Load a model, ready for use (eval mode, on the CPU).

    Args:
        source: a bundled name, a folder, or a hub id (``owner/name``, fetched and cached by huggingface_hub).

    Raises:
        CheckpointError: an unknown name, or a folder that can't be read.

    Example:
        >>> import atrous
        >>> model = atrous.load("deeplabv3plus_lite0_voc")
        >>> model.name, model.num_classes, model.output_stride
        ('deeplabv3plus', 21, 16)
    """
    return load_folder(find_model(source))


def find_model(source: str | Path) -> Path:
    """The folder of a model; one from the hub is fetched first.

    Args:
        source: as for :func:`load`.

    Raises:
        CheckpointError: an unknown name.
    """
    if str(source) in bundled():
        return BUNDLE / str(source)
    if Path(source).is_dir():
        return Path(source)
    if Path(source).is_file():
        raise CheckpointError(
            f"{source} is a file; a model is the folder that contains config.json and model.safetensors"
        )
    parent = Path(source).parent
    if parent != Path() and parent.is_dir():
        there = ", ".join(sorted(p.name for p in parent.iterdir() if p.is_dir())[:MENTIONED])
        raise CheckpointError(f"no model '{source}': {parent} has no such folder; it has: {there or 'none'}")
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return _from_hub(source)
    raise CheckpointError(
        f"no model '{source}': it is not a folder, and the bundled models are: {', '.join(bundled()) or 'none'} "
        "(a hub id has the form owner/name)"
    )


def _from_hub(repository: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", "model.safetensors"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        if isinstance(error, HFValidationError):
            hub = "it can't be a hub id either"
        elif isinstance(error, RepositoryNotFoundError):
            hub = "the hub has no such repository, or it is private"
        elif constants.HF_HUB_OFFLINE:
            hub = "the hub was not asked, since HF_HUB_OFFLINE is set, and it is not in the hub's cache"
        else:
            hub = f"it could not be fetched from the hub: {str(error).partition(chr(10))[0]}"
        owner = repository.partition("/")[0]
        raise CheckpointError(
            f"no model '{repository}': there is no such folder (nor a folder {owner}) in {Path.cwd()}, and {hub}"
        ) from error


def load_folder(folder: str | Path) -> SegmentationModel:
    """Read a model folder written by :meth:`SegmentationModel.save`; the model is in eval mode.

    Raises:
        CheckpointError: a file is missing, damaged, foreign, does not fit the architecture it names, or contains NaN
            or infinite weights.
    """
    folder = Path(folder)
    config, weights = read_folder(folder)
    known = {"format", "library", "architecture", "backbone", "in_channels", "options", "label_set", "preprocessing"}
    try:
        label_set = LabelSet.from_dict(config["label_set"])
        with limited_to(weights, folder / "config.json"):
            model = create_model(
                config["architecture"],
                backbone=config["backbone"],
                label_set=label_set,
                output_stride=config["output_stride"],
                in_channels=config["in_channels"],
                **config["options"],
            )
        model.preprocessing = Preprocessing.from_dict(config["preprocessing"])
        for key in model.settings.keys() & config.keys():
            setattr(model, key, config[key])
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # whatever the code of a network has to say of options that it can't have been saved with
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a model of this atrous: {error!r}"
        ) from error
    _fill(model, weights, folder / "model.safetensors")
    model.card = {k: v for k, v in config.items() if k not in known.union(model.settings)}
    return model.eval()


def _fill(model: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    slots = model.state_dict()
    missing, extra = sorted(slots.keys() - weights.keys()), sorted(weights.keys() - slots.keys())
    if missing or extra:
        parts = [f"{len(k)} {word} (first: {k[0]})" for k, word in ((missing, "missing"), (extra, "unknown")) if k]
        raise CheckpointError(f"{file} does not fit its config.json: tensors {' and '.join(parts)}")
    for key, slot in slots.items():
        if weights[key].shape != slot.shape:
            raise CheckpointError(
                f"{file}: {key} is {tuple(weights[key].shape)}, the model expects {tuple(slot.shape)}"
            )
    model.load_state_dict(weights)
    if found := find_not_finite(model.state_dict()):
        raise CheckpointError(f"{file}: {found}, so its predictions mean nothing: use an earlier checkpoint")
