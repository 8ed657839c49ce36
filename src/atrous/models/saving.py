"""Saving a model as a folder: its config, from which it is built again, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atrous.errors import InputError
from atrous.models.checkpoint import FORMAT, write_folder
from atrous.models.registry import is_known_backbone

if TYPE_CHECKING:
    from atrous.models.base import SegmentationModel


def save(model: SegmentationModel, folder: Path, dtype: torch.dtype | None, notes: Mapping[str, Any]) -> Path:
    """Write a model folder, as :meth:`atrous.models.base.SegmentationModel.save` describes it."""
    _check_rebuildable(model)
    return write_folder(folder, describe(model, notes), model.state_dict(), dtype)


def describe(model: SegmentationModel, notes: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says of a model: what builds it again, its classes and preprocessing, its card, and notes.

    Raises:
        InputError: a note has the name of one of the model's own settings.
    """
    own: dict[str, Any] = {
        "format": FORMAT if model.preprocessing.dtype != "uint8" else 1,  # which older versions read
        "library": "atrous",
        **model.config,
        "backbone": model.backbone.name,
        **model.settings,
        "label_set": model.label_set.to_dict(),
        "preprocessing": model.preprocessing.to_dict(),
    }
    if taken := sorted(own.keys() & notes.keys()):
        raise InputError(f"notes can't be called {', '.join(taken)}: these names are the model's own")
    return own | {key: value for key, value in {**model.card, **notes}.items() if key not in own}


def _check_rebuildable(model: SegmentationModel) -> None:
    backbone = model.backbone.name
    base = model.config["options"].get("base", model.name)
    if not is_known_backbone(base, backbone):
        raise InputError(
            f"the backbone {backbone} was given as an object, and a model folder needs a name to build it by. "
            "Register the function that makes it, atrous.models.register_backbone('my_net')(make), and set "
            "model.backbone.name = 'my_net'; or keep the weights alone: torch.save(model.state_dict(), 'model.pth')"
        )
