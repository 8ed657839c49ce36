"""Models of ours → state dicts that other programs load."""

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

_LEFT_OUT = ("dropout",)  # of no account in a trained network


def export_pytorch(model: SegmentationModel, layout: str) -> dict[str, Tensor]:
    """The state dict of a DeepLabv3, v3+ or dilated FCN in another program's names: there it gives the scores that ours
    gives at the output stride :func:`stride_there`, for images that are prepared as ``model.preprocessing`` says.

    Args:
        model: of an architecture, a backbone and options that the other program has; one that was converted from there,
            or built like that.
        layout: whose names, one of ``DEEPLABV3_LAYOUTS``.

    Returns:
        Tensors by name, on the CPU. What has no part in the scores there (transformers' last layer of MobileNetV2,
        torchvision's auxiliary head on MobileNetV3) is not among them.

    Raises:
        ValueError: a layout or a model that can't be written so; the message says what differs.
    """
    naming = _naming(model, layout)
    return {name: tensor.cpu().contiguous() for name, tensor in deeplabv3_to(model, naming).items()}


def stride_there(model: SegmentationModel, layout: str) -> int:
    """The output stride that a model has in another program: 8 in torchvision's on ResNets, else 16.

    Raises:
        ValueError: as :func:`export_pytorch`.
    """
    return _naming(model, layout).output_stride


def _naming(model: SegmentationModel, layout: str) -> Naming:
    if layout not in DEEPLABV3_LAYOUTS:
        raise InputError(f"no layout '{layout}' to write in; there are: {', '.join(DEEPLABV3_LAYOUTS)}")
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
        raise InputError(f"{layout}'s networks look at 3 channels, this one at {model.backbone.in_channels}")
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
        raise InputError(f"{layout}'s {model.name} on {backbone} has {said}: a model that is built so can be written")


def check_ending(file: Path) -> None:
    """Refuse a name by which no weights are read."""
    if file.suffix not in (".pth", ".safetensors"):
        raise InputError(f"{file} should end in .pth or .safetensors")


def write_pytorch(model: SegmentationModel, layout: str, file: str | Path) -> None:
    """Write :func:`export_pytorch`'s tensors as ``.pth`` or ``.safetensors``.

    Raises:
        ValueError: as there, or another ending.
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
