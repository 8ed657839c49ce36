"""The bundled models, and finding a model by name, folder or hub id."""

from __future__ import annotations

from pathlib import Path

from atrous.models.base import CheckpointError, SegmentationModel, load_folder

BUNDLE = Path(__file__).resolve().parent.parent / "zoo"
MENTIONED = 10
"""Folders that an error tells of at most."""
DEFAULT = "deeplabv3plus_lite0_voc"
"""The bundled model that the demo and ``predict`` take when none is named."""


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in BUNDLE.glob("*/config.json"))


def load(source: str | Path) -> SegmentationModel:
    """Load a model, ready for use (eval mode, on the CPU).

    Args:
        source: a bundled name, a folder, or a hub id (``owner/name``, fetched and cached by huggingface_hub).

    Raises:
        CheckpointError: nothing of that name, or a folder that can't be read.
    """
    if str(source) in bundled():
        return load_folder(BUNDLE / str(source))
    if Path(source).is_dir():
        return load_folder(source)
    if Path(source).is_file():
        raise CheckpointError(
            f"{source} is a file; a model is the folder that config.json and model.safetensors lie in"
        )
    parent = Path(source).parent
    if parent != Path() and parent.is_dir():
        there = ", ".join(sorted(p.name for p in parent.iterdir() if p.is_dir())[:MENTIONED])
        raise CheckpointError(f"no model '{source}': {parent} has no such folder; it has: {there or 'none'}")
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return load_folder(_from_hub(source))
    raise CheckpointError(
        f"no model '{source}': it is no folder, and the bundled models are: {', '.join(bundled()) or 'none'} "
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
            hub = "the hub has none of that name, or it asks for a login"
        elif constants.HF_HUB_OFFLINE:
            hub = "it was not looked for on the hub, since HF_HUB_OFFLINE is set; what was fetched before has none"
        else:
            hub = f"the hub did not give it: {str(error).partition(chr(10))[0]}"
        owner = repository.partition("/")[0]
        raise CheckpointError(
            f"no model '{repository}': there is no such folder (nor a folder {owner}) in {Path.cwd()}, and {hub}"
        ) from error
