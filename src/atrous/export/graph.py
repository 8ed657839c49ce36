"""What is exported: a network together with everything between an image's bytes and the label of each pixel."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import PIXELS, Grid, resample
from atrous.models.base import SegmentationModel
from atrous.models.surgery.trace import structural_copy

Size = tuple[int, int]
Crop = Callable[[Tensor, Size], Tensor]
Upsample = Callable[[Tensor, Grid, Size], tuple[Tensor, Crop]]
"""Takes logits, their grid and the image's size; returns logits of each pixel and possibly of some behind them, and
what cuts these off in the end.
"""


class Deployed(nn.Module):
    """From uint8 images to labels, with the model's own preprocessing, padding and geometry inside.

    Args:
        model: in eval mode, on the CPU.
        probabilities: return the class probabilities of each pixel too.
        upsample: how logits are brought to the image's size.
    """

    def __init__(self, model: SegmentationModel, probabilities: bool, upsample: Upsample) -> None:
        super().__init__()
        self.model, self.probabilities, self.upsample = model, probabilities, upsample

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """uint8 ``(N, H, W, C)`` → labels uint8 ``(N, H, W)`` and, if asked for, probabilities float32 ``(N, classes,
        H, W)``.
        """
        size = image.shape[1], image.shape[2]
        # Not channels-last: exporters spell out its strides.
        main = self.model.main_output(self.model.preprocessing(image.permute(0, 3, 1, 2).contiguous()))
        assert not isinstance(main.grid, tuple)  # as deployed() sees to
        logits, crop = self.upsample(main.logits.float(), main.grid, size)
        labels = crop(logits.argmax(1).to(torch.uint8), size)  # cut late: labels are the smallest
        return (labels, _softmax(crop(logits, size))) if self.probabilities else (labels,)


def _softmax(logits: Tensor) -> Tensor:
    """Over the classes, spelled out: ONNX Runtime's own moves them to the end and back, which takes longer than the
    network.
    """
    shares = (logits - logits.amax(1, keepdim=True)).exp()
    return shares / shares.sum(1, keepdim=True)


def sample_pixels(logits: Tensor, grid: Grid, size: Size) -> tuple[Tensor, Crop]:
    """Logits at the pixels of an image, by matrix products."""
    return resample(logits, grid, PIXELS, size), lambda x, _: x


def resize_to_pixels(logits: Tensor, grid: Grid, size: Size) -> tuple[Tensor, Crop]:
    """Logits at the pixels of an image and some behind them, by ONNX's ``Resize`` where it has the grid's geometry.

    It does for a whole stride with the first position in the centre of the first pixel ("asymmetric") or of the first
    cell ("half_pixel"), with the same result as :func:`sample_pixels` in two thirds of the time.
    """
    stride = int(grid.stride)
    geometry = {0.0: "asymmetric", (stride - 1) / 2: "half_pixel"}.get(grid.offset)
    if stride != grid.stride or geometry is None:
        return sample_pixels(logits, grid, size)
    batch, classes, rows, columns = logits.shape
    attributes: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": geometry}
    inputs = logits, None, torch.tensor([1.0, 1.0, stride, stride])
    shape = batch, classes, stride * rows, stride * columns
    return torch.onnx.ops.symbolic("Resize", inputs, attributes, dtype=torch.float32, shape=shape), _crop


def _crop(x: Tensor, size: Size) -> Tensor:
    """The first rows and columns. Slicing in torch would compare sizes, and so restrict those of the export."""
    ends = torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in size])
    starts, axes = torch.tensor([0, 0]), torch.tensor([x.ndim - 2, x.ndim - 1])
    return torch.onnx.ops.symbolic("Slice", (x, starts, ends, axes), dtype=x.dtype, shape=(*x.shape[:-2], *size))


def deployed(model: SegmentationModel, output_stride: int | None, probabilities: bool, upsample: Upsample) -> Deployed:
    """A copy of a model over the same weights, ready to be exported; the model itself is not changed.

    Raises:
        InputError: an output stride that the network does not support, or a resize other than exact.
    """
    if model.resize != "exact":
        raise InputError(
            f"this model's resize is '{model.resize}', which an export can't follow at every size: set "
            "model.resize = 'exact' and save it, so that logits are sampled where the features sit"
        )
    weights = list(model.parameters())
    shared = all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
    # Moving a copy that shares its weights would move the model's.
    copy = (structural_copy(model) if shared else deepcopy(model).cpu().float()).eval()
    copy.label_set, copy.card = model.label_set, model.card
    if output_stride is not None:
        copy.output_stride = output_stride
    return Deployed(copy, probabilities, upsample).eval()


def dynamic_shapes() -> dict[str, dict[int, torch.export.Dim]]:
    """Batch, height and width of the input are free."""
    names = ("batch", "height", "width")
    return {"image": {axis: torch.export.Dim(name) for axis, name in enumerate(names)}}


def example(model: SegmentationModel) -> Tensor:
    """An image to export with: two of other sides than most, so that no size is mistaken for another."""
    return torch.zeros(2, 125, 158, model.backbone.in_channels, dtype=torch.uint8)
