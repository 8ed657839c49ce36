"""From an image to the class of each of its pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.tune import stored_crf
from atrous.data.files.images import DecodedImage, Pixels, open_image, to_rgb
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.grid import PIXELS, Grid, resample
from atrous.inference.test_time import Merge, Method, View
from atrous.labels import LabelSet, Mask, encode_mask
from atrous.models.base import SegmentationModel
from atrous.models.layers import full_precision
from atrous.models.multi_scale import MultiScale
from atrous.models.surgery.trace import evaluating
from atrous.viz import areas, overlay

Source = str | Path | Pixels | Image.Image
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """How likely each class is, at the resolution of the network.

    Args:
        probabilities: float16 ``(C, h, w)``, softmax over the classes.
        grid: position *i* sits at pixel ``grid.stride * i + grid.offset`` of the image, in rows and columns alike.
    """

    probabilities: NDArray[np.float16]
    grid: Grid


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image and what was found in it.

    Args:
        labels: uint8 ``(H, W)``, the class of each pixel.
        image: uint8 RGB ``(H, W, 3)``, upright; of more channels, the first three.
        label_set: names and colours of the classes.
        notes: what a person should know about how the image was read.
        scores: the probabilities, where ``keep_scores=True`` asked for them.
        attention: float32 ``(S, H, W)``, one in sum: how much each scale counted at each pixel, for a network that
            attends to scales and looked once.
        scales: the factors of the ``S`` scales.
    """

    labels: Mask
    image: Pixels
    label_set: LabelSet
    notes: tuple[str, ...] = ()
    scores: ClassScores | None = None
    attention: NDArray[np.float32] | None = None
    scales: tuple[float, ...] = ()

    def overlay(self, *, alpha: float = 0.55, legend: bool = True, boundaries: bool = True) -> Pixels:
        """Lay the colours over the image: uint8 RGB, as :func:`atrous.viz.overlay`."""
        return overlay(self.image, self.labels, self.label_set, alpha=alpha, legend=legend, boundaries=boundaries)

    def fractions(self) -> dict[str, float]:
        """The share of the image that each class present covers, largest first; they add up to 1."""
        return {name: count / self.labels.size for name, count in areas(self.labels, self.label_set).items()}

    def save(self, path: str | Path) -> None:
        """Write the labels as a palette PNG, atomically: values are classes, colours are for the eye.

        Raises:
            ValueError: the path does not end in ``.png``; any other format would damage the labels.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(f"{path}: a mask is a PNG, since other formats change its values; name it {path.stem}.png")
        write_atomically(path, encode_mask(self.labels, self.label_set))


def predict(
    model: SegmentationModel,
    image: Source,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "float32",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    merge: Merge = "probabilities",
    crf: bool | DenseCRF = False,
    keep_scores: bool = False,
) -> Segmentation:
    """Find the class of every pixel of an image.

    Args:
        model: any model of this package; its mode and output stride are as before afterwards.
        image: a path, a uint8 RGB array ``(H, W, 3)``, or a Pillow image of any mode (turned upright); for a network of
            other channels, an array ``(H, W, C)`` of them.
        device: where to compute, and where the model is moved; where it is already when left out.
        output_stride: run the network at this stride instead of its own: smaller is finer and slower.
        precision: "bfloat16" runs the network under autocast: faster where the hardware has it, slightly other scores.
        scales: look at the image at these sizes, as in :class:`~atrous.inference.test_time.Method`, like the next two.
        flip: look at the mirror image too.
        merge: how what was seen is merged.
        crf: refine the result with a dense CRF: this one, or the one that was tuned for the model.
        keep_scores: keep the class probabilities at network resolution, before any CRF.

    Raises:
        ImageError: the file cannot be read.
        ValueError: an array of another shape or dtype, or an output stride or scales that the network cannot have.
    """
    decoded = _decode(image, model)
    chosen = crf if isinstance(crf, DenseCRF) else stored_crf(model.card) if crf else None
    method = Method(tuple(scales), flip, merge, chosen)
    with prepared(model, device, output_stride, precision) as where:
        return segment(model, decoded, where, method, keep_scores)


@contextmanager
def prepared(
    model: SegmentationModel, device: torch.device | str | None, output_stride: int | None, precision: Precision
) -> Iterator[torch.device]:
    """Make a model ready for :func:`segment`, and put its mode and output stride back afterwards.

    Args:
        model: any model of this package.
        device: where the model is moved; where it is already when None.
        output_stride: as in :func:`predict`.
        precision: as in :func:`predict`.

    Yields:
        The device to compute on.

    Raises:
        ValueError: an output stride that the network cannot have.
    """
    where = torch.device(device) if device is not None else next(model.parameters()).device
    model.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stride = model.output_stride
    if output_stride not in (None, stride):
        model.output_stride = output_stride
    try:
        with (
            evaluating(model),
            torch.inference_mode(),
            torch.autocast(where.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            yield where
    finally:
        if model.output_stride != stride:
            model.output_stride = stride


def segment(
    model: SegmentationModel, decoded: DecodedImage, where: torch.device, method: Method, keep_scores: bool
) -> Segmentation:
    """Find the class of every pixel of a decoded image, with a model that is :func:`prepared`."""
    image = torch.from_numpy(decoded.pixels).permute(2, 0, 1)[None].to(where)  # (1, 3, H, W)
    labels, views = method(model, image)
    scores = _probabilities(method, views, decoded.pixels.shape[1]) if keep_scores else None
    colours = (0, 1, 2) if decoded.pixels.shape[2] > 2 else (0, 0, 0)
    shown = np.ascontiguousarray(decoded.pixels[..., colours])
    found = Segmentation(labels.cpu().numpy(), shown, model.label_set, decoded.notes, scores)
    if len(views) > 1 or views[0].attention is None or not isinstance(model, MultiScale):
        return found
    size = (image.shape[-2], image.shape[-1])
    with full_precision(image):
        weights = resample(views[0].attention.float(), views[0].grid, PIXELS, size)[0].cpu().numpy()
    return replace(found, attention=weights, scales=model.scales)


def _probabilities(method: Method, views: Sequence[View], width: int) -> ClassScores:
    """The merged probabilities where the first view's positions sit."""
    scores, grid = views[0].scores, views[0].grid
    merged = method.merged(views, grid, grid, (scores.shape[-2], scores.shape[-1]), width)[0]
    averaged = len(views) > 1 and method.merge == "probabilities"
    return ClassScores((merged if averaged else merged.softmax(0)).half().cpu().numpy(), grid)


def _decode(image: Source, model: SegmentationModel) -> DecodedImage:
    if isinstance(image, str | Path):
        return open_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image is a path, a NumPy array or a Pillow image, not a {type(image).__name__}")
    channels = model.backbone.in_channels
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or not image.size:
        what = "an RGB image" if channels == 3 else "an image"
        pillows = image.dtype == np.uint8 and channels == 3 and (image.ndim == 2 or image.shape[-1] == 4)
        hint = "; PIL.Image.fromarray(array) may be grey or RGBA" if pillows else ""
        raise InputError(
            f"expected {what} as uint8 (H, W, {channels}) with values 0–255, not {image.dtype} {image.shape}{hint}"
        )
    return DecodedImage(np.array(image, order="C"))
