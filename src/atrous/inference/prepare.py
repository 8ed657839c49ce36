"""Making a model ready to run, without changing it: threads may share it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from atrous.errors import InputError, InputTypeError
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import STRUCTURE, structural_copy

Precision = Literal["float32", "bfloat16"]
"""What a network computes in; bfloat16 is by autocast."""


def require_model(model: object) -> None:
    """Refuse the name of a model where the model itself is expected.

    Raises:
        InputTypeError: a name or path; the message shows how to load it.
    """
    if isinstance(model, str | os.PathLike):
        raise InputTypeError(f"model is a {type(model).__name__}, expected a model: atrous.load({str(model)!r})")


@contextmanager
def prepared(
    model: SegmentationModel,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "float32",
) -> Iterator[tuple[SegmentationModel, torch.device]]:
    """Run a model in eval and inference mode, as it is or as a copy over the same weights: its own modes and output
    stride stay what they are, and other threads may use it meanwhile, on the same device.

    Args:
        model: any model of this package.
        device: where the model is moved, and stays; its current device by default.
        output_stride: run the network at this stride instead of its own.
        precision: "bfloat16" runs the network under autocast.

    Yields:
        The model to run, and the device to compute on.

    Raises:
        InputError: an unknown precision, parameters of several types, or an output stride that the network does not
            support.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(get_args(Precision))}, not '{precision}'")
    dtypes = sorted({str(tensor.dtype) for tensor in model.parameters() if tensor.is_floating_point()})
    if len(dtypes) > 1 or (precision != "float32" and dtypes != ["torch.float32"]):
        raise InputError(
            f"the network's parameters are {' and '.join(dtypes)}, expected torch.float32 for precision '{precision}': "
            "call model.float()"
        )
    where = torch.device(device) if device is not None else next(model.parameters()).device
    _move(model, where)
    with (
        torch.inference_mode(),
        torch.autocast(where.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield _ready(model, output_stride), where


def _move(model: SegmentationModel, where: torch.device) -> None:
    """Move a model, unless it is in place: the weights of one that runs in another thread must not be replaced."""
    with STRUCTURE:
        if not all(_in_place(tensor, where) for tensor in (*model.parameters(), *model.buffers())):
            model.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _in_place(tensor: Tensor, where: torch.device) -> bool:
    channels_last = tensor.ndim != 4 or tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.device == where and (channels_last or not tensor.is_floating_point())


def _ready(model: SegmentationModel, output_stride: int | None) -> SegmentationModel:
    """The model, if it is in eval mode and at the output stride; else a copy over the same weights that is."""
    with STRUCTURE:
        stays = output_stride is None or output_stride == model.output_stride
        if stays and not any(module.training for module in model.modules()):
            return model
        ready = structural_copy(model).eval()
    ready.label_set = model.label_set
    if not stays:
        ready.output_stride = output_stride  # type: ignore[assignment]
    return ready
