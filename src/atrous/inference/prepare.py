"""Making a model ready to run, without changing it: threads may share it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from atrous.errors import InputError, InputTypeError, kind_of
from atrous.inference.fast import FastNetwork
from atrous.models.base import Output, SegmentationModel
from atrous.models.surgery.trace import STRUCTURE, structural_copy

Precision = Literal["auto", "float32", "bfloat16"]
"""What a network computes in: ``float32`` runs its layers as they are, the reference; ``bfloat16`` runs them under
autocast; ``auto`` is the fastest way on this machine that gives the same labels but for rounding.
"""


def require_model(model: object) -> None:
    """Refuse the name of a model where the model itself is expected.

    Raises:
        InputTypeError: a name or path; the message shows how to load it.
    """
    if isinstance(model, str | os.PathLike):
        raise InputTypeError(f"model is {kind_of(model)}, expected a model: atrous.load({str(model)!r})")


class PreparedModel:
    """A model's network, ready to run: in eval mode, on a device, at an output stride, in a precision.

    It is a copy over the model's weights: the model's own modes and output stride stay what they are and may be set
    meanwhile, and several threads may run it.

    Args:
        model: any model of this package.
        device: where the model is moved, and stays; its current device by default.
        output_stride: run the network at this stride instead of its own.
        precision: see :data:`Precision`.

    Attributes:
        model: the copy; its layers are the network's own.
        device: where it computes.
        precision: what it computes in, ``float32`` or ``bfloat16``.

    Raises:
        InputError: an unknown precision, parameters of several types, or an output stride that the network does not
            support.
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        device: torch.device | str | None = None,
        output_stride: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        if precision not in get_args(Precision):
            raise InputError(f"precision is one of {', '.join(get_args(Precision))}, not '{precision}'")
        dtypes = sorted({str(tensor.dtype) for tensor in model.parameters() if tensor.is_floating_point()})
        if len(dtypes) > 1 or (precision == "bfloat16" and dtypes != ["torch.float32"]):
            raise InputError(
                f"the network's parameters are {' and '.join(dtypes)}, expected torch.float32 for precision "
                f"'{precision}': call model.float()"
            )
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        self._asked: Precision = precision
        self.precision: Literal["float32", "bfloat16"] = "bfloat16" if precision == "bfloat16" else "float32"
        _move(model, self.device)
        self.model = _copied(model, output_stride)
        fast = precision == "auto" and self.device.type == "cpu" and dtypes == ["torch.float32"]
        self._fast = FastNetwork(self.model) if fast else None

    def alike(self, model: SegmentationModel) -> PreparedModel:
        """Another model prepared in the same way: where this one is, in the precision that was asked for."""
        return PreparedModel(model, device=self.device, precision=self._asked)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The modes that the network and what follows it run in."""
        bfloat16 = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            yield

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 ``(B, C, H, W)`` → the network's input, float32 of the same shape."""
        return self.model.preprocess(images)

    def main_output(self, images: Tensor) -> Output:
        """Run the network on preprocessed images ``(B, C, H, W)``."""
        fast = self._fast.main_output(images) if self._fast else None
        return self.model.main_output(images) if fast is None else fast

    def outputs(self, images: Tensor) -> list[Output]:
        """Run the network with its auxiliary heads."""
        return self.model.outputs(images)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The network's parameters."""
        return self.model.parameters()


@contextmanager
def prepared(
    model: SegmentationModel,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "float32",
) -> Iterator[tuple[PreparedModel, torch.device]]:
    """Run a model as a :class:`PreparedModel` for a while: the same arguments and errors.

    Yields:
        The model to run, and the device to compute on.
    """
    ready = PreparedModel(model, device=device, output_stride=output_stride, precision=precision)
    with ready.running():
        yield ready, ready.device


def fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """What a prepared copy of a model depends on: another value means that the model has changed since.

    Weights that are changed behind torch's back (through ``.data``, or a NumPy array over their memory) are not seen.
    """
    layers = [
        (id(layer), *layer._forward_pre_hooks, *layer._forward_hooks, *_settings(layer)) for layer in model.modules()
    ]
    tensors = [
        (id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
        for tensor in (*model.parameters(), *model.buffers())
    ]
    return *layers, *tensors


def _settings(layer: nn.Module) -> Iterator[Any]:
    """A layer's own attributes; objects by identity. Its mode is none: the copy is in eval mode."""
    for name, value in vars(layer).items():
        if not name.startswith("_") and name != "training":
            yield name
            yield value if isinstance(value, int | float | str | tuple) else id(value)


def _move(model: SegmentationModel, where: torch.device) -> None:
    """Move a model, unless it is in place: the weights of one that runs in another thread must not be replaced."""
    with STRUCTURE:
        if not all(_in_place(tensor, where) for tensor in (*model.parameters(), *model.buffers())):
            model.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _in_place(tensor: Tensor, where: torch.device) -> bool:
    channels_last = tensor.ndim != 4 or tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.device == where and (channels_last or not tensor.is_floating_point())


def _copied(model: SegmentationModel, output_stride: int | None) -> SegmentationModel:
    """A copy over the same weights, in eval mode and at the output stride."""
    with STRUCTURE:
        ready = structural_copy(model).eval()
    ready.label_set = model.label_set
    if output_stride is not None and output_stride != model.output_stride:
        ready.output_stride = output_stride
    return ready
