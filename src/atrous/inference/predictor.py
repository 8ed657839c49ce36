"""From an image to the class of each of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.settings import stored_crf
from atrous.data.files.exif import Pixels
from atrous.data.files.images import DecodedImage, open_image, to_rgb
from atrous.errors import InputError
from atrous.grid import PIXELS, resample
from atrous.inference.prepare import Precision, prepared, require_model
from atrous.inference.segmentation import ClassProbabilities, Segmentation
from atrous.inference.test_time import Inference, Merge, View
from atrous.models.base import SegmentationModel
from atrous.models.layers import full_precision

Source = str | Path | Pixels | Image.Image


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
    keep_probabilities: bool = False,
) -> Segmentation:
    """Find the class of every pixel of an image.

    Args:
        model: any model of this package; its mode and output stride are restored afterwards.
        image: a path, a uint8 RGB array ``(H, W, 3)``, or a Pillow image of any mode (turned upright); for a network of
            other input channels, an array ``(H, W, C)``.
        device: where to compute, and where the model is moved; its current device by default.
        output_stride: run the network at this stride instead of its own: smaller is finer and slower.
        precision: "bfloat16" runs the network under autocast: faster where the hardware supports it, slightly other
            logits.
        scales: run the network on the image at these scales, as :class:`~atrous.inference.test_time.Inference`
            describes, like the next two.
        flip: run it on the mirror image too.
        merge: how scales and mirror images are merged.
        crf: refine the result with a dense CRF: this one, or with True the one that was tuned for the model.
        keep_probabilities: keep the class probabilities at network resolution, before any CRF.

    Raises:
        ImageError: the file cannot be read.
        InputError: an array of another shape or dtype, or an output stride or scales that are not supported.
        InputTypeError: the name of a model instead of a model.

    Example:
        >>> import atrous
        >>> from PIL import Image
        >>> Image.new("RGB", (60, 40)).save("photo.png")
        >>> model = atrous.load("deeplabv3plus_lite0_voc")
        >>> atrous.predict(model, "photo.png", scales=(0.75, 1.0), flip=True).labels.shape
        (40, 60)
    """
    require_model(model)
    decoded = _decode(image, model)
    chosen = crf if isinstance(crf, DenseCRF) else stored_crf(model.card) if crf else None
    inference = Inference(tuple(scales), flip, merge, chosen)
    with prepared(model, device=device, output_stride=output_stride, precision=precision) as (ready, where):
        return segment(ready, decoded, where, inference, keep_probabilities)


def segment(
    model: SegmentationModel, decoded: DecodedImage, where: torch.device, inference: Inference, keep_probabilities: bool
) -> Segmentation:
    """Find the class of every pixel of a decoded image, with a model that is :func:`prepared`."""
    image = torch.from_numpy(decoded.pixels).permute(2, 0, 1)[None].to(where)  # (1, 3, H, W)
    labels, views = inference(model, image)
    probabilities = _probabilities(inference, views, decoded.pixels.shape[1]) if keep_probabilities else None
    colours = (0, 1, 2) if decoded.pixels.shape[2] > 2 else (0, 0, 0)
    shown = np.ascontiguousarray(decoded.pixels[..., colours])
    found = Segmentation(labels.cpu().numpy(), shown, model.label_set, decoded.notes, probabilities)
    if len(views) > 1 or views[0].attention is None:
        return found
    size = (image.shape[-2], image.shape[-1])
    with full_precision(image):
        weights = resample(views[0].attention.float(), views[0].grid, PIXELS, size)[0].cpu().numpy()
    return replace(found, attention=weights, scales=model.scales)


def _probabilities(inference: Inference, views: Sequence[View], width: int) -> ClassProbabilities:
    """The merged probabilities at the positions of the first view."""
    logits, grid = views[0].logits, views[0].grid
    merged = inference.merged(views, grid, grid, (logits.shape[-2], logits.shape[-1]), width)[0]
    values = merged if inference.averages_probabilities else merged.softmax(0)
    if not values.isfinite().all():
        raise InputError("the class probabilities are not finite: the network's logits are too large")
    return ClassProbabilities(values.half().cpu().numpy(), grid)


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
