"""Model folders: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from atrous.errors import OutputExistsError
from atrous.files import replacing_folder
from atrous.models.model_config import FORMAT, CheckpointError, read_config

__all__ = ["FORMAT", "CheckpointError", "find_not_finite", "is_model_folder", "read_folder", "write_folder"]


def find_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that contains NaN or infinity, as a message; None if there is none."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and tensor.numel()):
            continue
        least, most = tensor.aminmax()  # NaN if any value is; needs no memory, as a mask of all values would
        if not (least.isfinite() and most.isfinite()):
            count = int((~tensor.isfinite()).sum())
            return f"{count:,} of the {tensor.numel():,} values of '{name}' are NaN or infinite"
    return None


def is_model_folder(folder: Path) -> bool:
    """Whether a folder contains a model of this package, according to its config."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("library") == "atrous"


def write_folder(
    folder: Path, config: dict[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype | None
) -> Path:
    """Write a model folder atomically: an old one is replaced only by a complete new one.

    Args:
        folder: to write; its parents are created.
        config: what rebuilds the model, and its card, as JSON values.
        weights: the model's tensors.
        dtype: the type floating-point weights are stored in; their own when left out.

    Raises:
        OutputExistsError: the folder contains something other than a model of this package, which would be lost.
    """
    if folder.is_dir() and any(folder.iterdir()) and not is_model_folder(folder):
        raise OutputExistsError(f"{folder} holds something other than a model; name another folder")
    Path(os.path.realpath(folder)).parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as new:
        tensors = {k: _stored(v, dtype) for k, v in weights.items()}
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (new / "config.json").write_bytes(text.encode(errors="backslashreplace"))  # file names need not be UTF-8
        # safetensors writes for the owner alone; a model is read by whoever may read its folder.
        (new / "model.safetensors").chmod((new / "config.json").stat().st_mode)
    return folder


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().to("cpu", dtype if dtype and tensor.is_floating_point() else tensor.dtype)
    return tensor.contiguous()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors of a model folder.

    Raises:
        CheckpointError: a file is missing or damaged, or was written by another program.
    """
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            best = folder / "best"
            hint = f"; did you mean {best}?" if (best / file.name).is_file() else ""
            raise CheckpointError(
                f"{folder} is not a model folder: {file.name} is missing (expected config.json and model.safetensors)"
                + hint
            )
    config = read_config(config_file)
    try:
        return config, load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights_file} is damaged or truncated: {error}") from error
