"""The door to prediction: one image or a list of them, a network or an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.images import DecodedImage
from atrous.inference.segmentation import Segmentation
from atrous.inference.sources import Source, read_source
from atrous.runtime.exported import ExportedModel

if TYPE_CHECKING:  # an exported model needs no torch
    import torch

    from atrous.crf.dense_crf import DenseCRF
    from atrous.inference.exported import ExportedPredictor
    from atrous.inference.predictor import Predictor
    from atrous.inference.prepare import Precision
    from atrous.inference.test_time import Inference, Merge
    from atrous.models.base import SegmentationModel

BATCH_PIXELS = 2**21
"""Pixels of the images that run through a network together."""


@overload
def predict(model: SegmentationModel | ExportedModel, image: Source, **options: Any) -> Segmentation: ...
@overload
def predict(
    model: SegmentationModel | ExportedModel, image: Sequence[Source], **options: Any
) -> list[Segmentation]: ...
def predict(  # type: ignore[misc]  # the options that the overloads leave open
    model: SegmentationModel | ExportedModel,
    image: Any,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "auto",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    merge: Merge = "probabilities",
    crf: bool | DenseCRF = False,
    keep_probabilities: bool = False,
) -> Segmentation | list[Segmentation]:
    """Find the class of every pixel of an image, or of each of several.

    What is prepared for it is kept for the next call with this model, until the model changes; a
    :class:`~atrous.inference.predictor.Predictor` of your own holds it for as long as you like.

    Args:
        model: any model of this package, whose mode and output stride are restored afterwards, or an exported one.
        image: a path; the bytes of a file, or a file opened in binary mode; a Pillow image of any mode (turned
            upright); an array uint8 RGB ``(H, W, 3)``, or ``(H, W, C)`` of the type that a network of other images was
            trained on; or a tensor ``(C, H, W)`` of that type. A list of them gives a list; on a GPU neighbours of one
            size run through the network together (on a CPU a batch takes longer than its images one by one).
        device: where to compute, and where the model is moved; its current device by default.
        output_stride: run the network at this stride instead of its own: smaller is finer and slower.
        precision: ``auto`` is the fastest way on this machine that gives the same labels but for rounding; ``float32``
            is the reference, the network's layers as they are; ``bfloat16`` runs them under autocast.
        scales: run the network on the image at these scales, as :class:`~atrous.inference.test_time.Inference`
            describes, like the next two.
        flip: run it on the mirror image too.
        merge: how scales and mirror images are merged.
        crf: refine the result with a dense CRF: this one, or with True the one that was tuned for the model.
        keep_probabilities: keep the class probabilities, before any CRF: at network resolution, or at the image's size
            from an exported model, which must have been exported with them.

    Raises:
        ImageError: the file cannot be read.
        InputError: an array or tensor of another shape, dtype or range, an output stride or scales that are not
            supported, or an option that an exported model does not have.
        InputTypeError: the name of a model instead of a model.

    Example:
        >>> import atrous
        >>> from PIL import Image
        >>> Image.new("RGB", (60, 40)).save("photo.png")
        >>> model = atrous.load("deeplabv3plus_lite0_voc")
        >>> atrous.predict(model, "photo.png", scales=(0.75, 1.0), flip=True).labels.shape
        (40, 60)
        >>> atrous.predict(model, ["photo.png", Image.open("photo.png").convert("RGB")])
        [Segmentation(40×60: background 100%), Segmentation(40×60: background 100%)]
    """
    predictor = predictor_of(model, device=device, output_stride=output_stride, precision=precision)
    inference = _inference(model, scales, flip, merge, crf)
    if not isinstance(image, list | tuple):
        return predictor.segment(read_source(image, predictor.images), inference, keep_probabilities)
    images = [read_source(one, predictor.images) for one in image]
    alone = inference is not None or keep_probabilities or bool(getattr(model, "merges", ()))
    if alone or not predictor.batches_pay:
        return [predictor.segment(decoded, inference, keep_probabilities) for decoded in images]
    return [found for group in _groups(images) for found in _segment_together(predictor, group)]


def predictor_of(
    model: SegmentationModel | ExportedModel,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "auto",
) -> Predictor | ExportedPredictor:
    """What runs a model: for an exported one its file, else the network, prepared and kept.

    Args and errors are those of :class:`~atrous.inference.predictor.Predictor` and
    :class:`~atrous.inference.exported.ExportedPredictor`.
    """
    if isinstance(model, ExportedModel):
        from atrous.inference.exported import ExportedPredictor

        return ExportedPredictor(model, device=device, output_stride=output_stride, precision=precision)
    from atrous.inference.predictor import kept_predictor

    return kept_predictor(model, device=device, output_stride=output_stride, precision=precision)


def _inference(
    model: SegmentationModel | ExportedModel,
    scales: Sequence[float],
    flip: bool,
    merge: Merge,
    crf: bool | DenseCRF,
) -> Inference | None:
    """What the options describe; None for a single view, which needs no torch."""
    if tuple(scales) == (1.0,) and not flip and merge == "probabilities" and crf is False:
        return None
    from atrous.crf.dense_crf import DenseCRF
    from atrous.crf.settings import stored_crf
    from atrous.inference.test_time import Inference

    chosen = crf if isinstance(crf, DenseCRF) else stored_crf(model.card) if crf else None
    return Inference(tuple(scales), flip, merge, chosen)


def _groups(images: Sequence[DecodedImage]) -> list[list[DecodedImage]]:
    """Neighbours of one size, at most :data:`BATCH_PIXELS` together."""
    groups: list[list[DecodedImage]] = []
    for image in images:
        height, width = image.pixels.shape[:2]
        last = groups[-1] if groups else []
        fits = (len(last) + 1) * height * width <= BATCH_PIXELS
        if last and last[0].pixels.shape == image.pixels.shape and fits:
            last.append(image)
        else:
            groups.append([image])
    return groups


def _segment_together(predictor: Predictor | ExportedPredictor, images: Sequence[DecodedImage]) -> list[Segmentation]:
    labels = predictor.labels(np.stack([image.pixels for image in images]))
    return [
        Segmentation(found, shown_pixels(image.pixels), predictor.label_set, image.notes)
        for found, image in zip(labels, images, strict=True)
    ]
