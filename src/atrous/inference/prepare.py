"""Making a model ready to run, and putting it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from atrous.errors import InputError
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import evaluating

Precision = Literal["float32", "bfloat16"]
"""What a network computes in; bfloat16 is by autocast."""


@contextmanager
def prepared(
    model: SegmentationModel,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "float32",
) -> Iterator[torch.device]:
    """Run a model in eval and inference mode; its modes and output stride are restored afterwards.

    Args:
        model: any model of this package.
        device: where the model is moved, and stays; its current device by default.
        output_stride: run the network at this stride instead of its own.
        precision: "bfloat16" runs the network under autocast.

    Yields:
        The device to compute on.

    Raises:
        InputError: an unknown precision, or an output stride that the network does not support.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(get_args(Precision))}, not '{precision}'")
    where = torch.device(device) if device is not None else next(model.parameters()).device
    model.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with (
        _at_output_stride(model, output_stride),
        evaluating(model),
        torch.inference_mode(),
        torch.autocast(where.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield where


@contextmanager
def _at_output_stride(model: SegmentationModel, output_stride: int | None) -> Iterator[None]:
    if output_stride is None or output_stride == model.output_stride:
        yield
        return
    own, model.output_stride = model.output_stride, output_stride
    try:
        yield
    finally:
        model.output_stride = own
