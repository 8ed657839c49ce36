"""Converting models to state dicts that other programs load."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from atrous.convert.architectures.deeplabv3 import Naming, deeplabv3_to
from atrous.convert.architectures.deeplabv3_layouts import DEEPLABV3_LAYOUTS
from atrous.convert.layouts import LAYOUTS
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model

_LEFT_OUT = ("dropout",)  # has no effect on a trained network


def export_pytorch(model: SegmentationModel, layout: str) -> dict[str, Tensor]:
    """The state dict of a DeepLabv3, v3+ or dilated FCN with another program's names.

    There it gives the logits that our model gives at output stride :func:`stride_there`, for images preprocessed as by
    ``model.preprocessing``.

    Args:
        model: one whose architecture, backbone and options the other program has: converted from there, or built so.
        layout: whose names, one of ``DEEPLABV3_LAYOUTS``.

    Returns:
        Tensors by name, on the CPU, without those that have no effect on the logits there (transformers' last layer of
        MobileNetV2, torchvision's auxiliary head on MobileNetV3).

    Raises:
        InputError: the layout is unknown, or does not have such a model; the message says what differs.
    """
    naming = _naming(model, layout)
    return {name: tensor.cpu().contiguous() for name, tensor in deeplabv3_to(model, naming).items()}


def stride_there(model: SegmentationModel, layout: str) -> int:
    """The output stride that a model has in another program: 8 in torchvision's on ResNets, else 16.

    Raises:
        InputError: as for :func:`export_pytorch`.
    """
    return _naming(model, layout).output_stride


def _naming(model: SegmentationModel, layout: str) -> Naming:
    if layout not in DEEPLABV3_LAYOUTS:
        raise InputError(
            f"'{layout}' is not a layout that can be written; available are {', '.join(DEEPLABV3_LAYOUTS)}"
        )
    names = DEEPLABV3_LAYOUTS[layout]
    backbone = model.backbone.name.partition(".")[0]  # timm's tag says where weights came from
    if model.name not in LAYOUTS[layout] or backbone not in names.backbones:
        raise InputError(
            f"{layout} has {', '.join(LAYOUTS[layout])} on {', '.join(names.backbones)}; "
            f"this is {model.name} on {backbone}"
        )
    naming = names.naming(
        model.name, backbone, lambda name: model.aux_classifier is not None or not name.startswith("aux_classifier.")
    )
    if model.backbone.in_channels != 3:
        raise InputError(f"{layout}'s networks have 3 input channels, this one has {model.backbone.in_channels}")
    _check_options(model, layout, backbone, naming)
    return naming


def _check_options(model: SegmentationModel, layout: str, backbone: str, naming: Naming) -> None:
    with torch.device("meta"):
        options = dict(naming.options)
        theirs = create_model(model.name, backbone=backbone, label_set=model.label_set, **options).config["options"]
    ours = model.config["options"]
    differing = [key for key, value in theirs.items() if key not in _LEFT_OUT and ours[key] != value]
    if differing:
        said = ", ".join(f"{key} = {theirs[key]} (here {ours[key]})" for key in differing)
        raise InputError(f"{layout}'s {model.name} on {backbone} has {said}: only a model built so can be written")


def check_ending(file: Path) -> None:
    """Check that the name of a file to write ends in .pth or .safetensors."""
    if file.suffix not in (".pth", ".safetensors"):
        raise InputError(f"{file} should end in .pth or .safetensors")


def write_pytorch(model: SegmentationModel, layout: str, file: str | Path) -> None:
    """Write :func:`export_pytorch`'s tensors as ``.pth`` or ``.safetensors``.

    Raises:
        InputError: as for :func:`export_pytorch`, or the file has another ending.
    """
    file = Path(file)
    check_ending(file)
    tensors = export_pytorch(model, layout)
    written = io.BytesIO()
    if file.suffix == ".pth":
        torch.save(tensors, written)
    else:
        written.write(save(tensors))
    write_atomically(file, written.getvalue())
