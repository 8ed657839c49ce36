"""A network made ready to predict: from an image to the class of each of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.exif import Pixels
from atrous.data.files.image_form import Values
from atrous.data.files.images import DecodedImage
from atrous.data.files.rasters import Span
from atrous.errors import InputError
from atrous.grid import PIXELS, Grid, by_side, resample
from atrous.inference.large import Large, seam_note, tiled_labels
from atrous.inference.prepare import Precision, PreparedModel, fingerprint, require_model
from atrous.inference.segmentation import ClassProbabilities, Segmentation
from atrous.inference.sources import check_pixels
from atrous.inference.taken import image_form
from atrous.inference.test_time import Inference, View
from atrous.inference.tiles import Tiling, image_tensor
from atrous.models.base import SegmentationModel
from atrous.models.layers import full_precision


class Predictor:
    """A model made ready to predict: everything that does not depend on the image is done once, here.

    It holds the network as a :class:`~atrous.inference.prepare.PreparedModel`: a copy over the model's weights in eval
    mode, on a device, in channels-last memory, at an output stride, in the fastest precision. The model itself may be
    trained or changed meanwhile; weights that have changed need a new predictor. Several threads may share one.

    The first fast run on a CPU changes one thing in the whole process: with glibc it keeps up to 256 MB of the memory
    that it frees, which large feature maps take again at once, unless the environment sets how memory is freed
    (:func:`~atrous.inference.fast.keep_freed_memory`).

    Args:
        model: any model of this package.
        device: where to compute, and where the model is moved; its current device by default.
        output_stride: run the network at this stride instead of its own: smaller is finer and slower.
        precision: ``auto``, ``float32`` (the reference) or ``bfloat16``; see
            :data:`atrous.inference.prepare.Precision`.

    Attributes:
        network: the prepared model, with its ``device`` and ``precision``.
        label_set: names and colours of the classes.
        images: the channels of an image, and the type of its values.
        batches_pay: whether several images in one run are faster than one by one.

    Raises:
        InputError: an unknown precision, parameters of several types, or an output stride that the network does not
            support.
        InputTypeError: the name of a model instead of a model.

    Example:
        >>> import atrous, numpy as np
        >>> from atrous.inference.predictor import Predictor
        >>> predictor = Predictor(atrous.load("deeplabv3plus_lite0_voc"))
        >>> predictor.labels(np.zeros((2, 40, 60, 3), np.uint8)).shape
        (2, 40, 60)
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        device: torch.device | str | None = None,
        output_stride: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        require_model(model)
        self.network = PreparedModel(model, device=device, output_stride=output_stride, precision=precision)
        self.label_set = model.label_set
        self.images = image_form(model)
        self.batches_pay = self.network.device.type != "cpu"

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.images.channels

    def labels(self, images: Values, inference: Inference | None = None) -> NDArray[np.uint8]:
        """Find the class of every pixel of some images of one size, which run through the network together.

        Args:
            images: uint8 RGB ``(N, H, W, 3)``; ``(N, H, W, C)``, of the type that it was trained on, for a network of
                other images.
            inference: scales, mirror images, a CRF; a single view by default.

        Returns:
            uint8 ``(N, H, W)``.

        Raises:
            InputError: another shape or dtype.
        """
        check_pixels(images, "N, H, W", self.images)
        batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        with self.network.running():
            labels = (inference or Inference()).batch_labels(self.network, batch.to(self.network.device))
        return labels.cpu().numpy()

    def segment(
        self,
        decoded: DecodedImage,
        inference: Inference | None = None,
        keep_probabilities: bool = False,
        large: Large | None = None,
    ) -> Segmentation:
        """Find the class of every pixel of a decoded image.

        Args:
            decoded: the image ``(H, W, C)``, uint8 or what the network was trained on.
            inference: scales, mirror images, a CRF; a single view by default.
            keep_probabilities: keep the class probabilities at network resolution, before any CRF.
            large: how the image is cut into tiles, which by default is done where the memory does not suffice for it
                whole. Probabilities and attention are of whole images alone.
        """
        size, inference, large = decoded.pixels.shape[:2], inference or Inference(), large or Large()
        with self.network.running():
            if large.longest_side and max(size) > large.longest_side:
                return _segment(self.network, decoded, inference, keep_probabilities, large.longest_side)
            tiling = None if keep_probabilities else large.tiles(self.network, size, inference)
            if tiling and max(len(tiling.spans(side)) for side in size) > 1:
                return _segment_in_tiles(self.network, decoded, inference, tiling)
            return _segment(self.network, decoded, inference, keep_probabilities)


_KEPT: WeakKeyDictionary[SegmentationModel, dict[Any, tuple[Any, Predictor]]] = WeakKeyDictionary()
"""For each model the predictors that were made for it, with its fingerprint and settings at that time."""
_MOST_KEPT = 4
_KEEPING = Lock()


def kept_predictor(
    model: SegmentationModel,
    *,
    device: torch.device | str | None = None,
    output_stride: int | None = None,
    precision: Precision = "auto",
) -> Predictor:
    """The predictor of a model that was made for an earlier call, if the model is still the same, or a new one.

    Args and errors are those of :class:`Predictor`. The last four of each model are kept as long as the model lives.
    """
    require_model(model)
    key = (None if device is None else str(device), output_stride, precision)
    seen = fingerprint(model), model.settings
    with _KEEPING:
        known, predictor = _KEPT.get(model, {}).get(key, (None, None))
    if predictor is None or known != seen:
        predictor = Predictor(model, device=device, output_stride=output_stride, precision=precision)
        seen = fingerprint(model), model.settings  # it may have been moved
    with _KEEPING:
        kept = _KEPT.setdefault(model, {})
        kept.pop(key, None)
        kept[key] = (seen, predictor)
        while len(kept) > _MOST_KEPT:
            del kept[next(iter(kept))]
    return predictor


def _segment_in_tiles(
    network: PreparedModel, decoded: DecodedImage, inference: Inference, tiling: Tiling
) -> Segmentation:
    def read(rows: Span, columns: Span) -> Pixels:
        return np.ascontiguousarray(decoded.pixels[slice(*rows), slice(*columns)])

    size = decoded.pixels.shape[:2]
    labels = np.concatenate([strip for _, strip in tiled_labels(network, read, size, inference, tiling)])
    notes = (*decoded.notes, seam_note(network, tiling))
    return Segmentation(labels, shown_pixels(decoded.pixels), network.model.label_set, notes)


def _segment(
    network: PreparedModel,
    decoded: DecodedImage,
    inference: Inference,
    keep_probabilities: bool,
    longest_side: int | None = None,
) -> Segmentation:
    image = image_tensor(decoded.pixels, network.device)  # (1, C, H, W)
    if longest_side is None:
        labels, views = inference(network, image)
    else:
        views = _views_of_smaller(network, decoded.pixels, inference, longest_side)
        labels = inference.labels(views, image)
    probabilities = _probabilities(inference, views, decoded.pixels.shape[1]) if keep_probabilities else None
    shown = shown_pixels(decoded.pixels)
    found = Segmentation(labels.cpu().numpy(), shown, network.model.label_set, decoded.notes, probabilities)
    if len(views) > 1 or views[0].attention is None:
        return found
    size = (image.shape[-2], image.shape[-1])
    with full_precision(image):
        weights = resample(views[0].attention.float(), views[0].grid, PIXELS, size)[0].cpu().numpy()
    return replace(found, attention=weights, scales=network.model.scales)


def _views_of_smaller(network: PreparedModel, pixels: Pixels, inference: Inference, longest_side: int) -> list[View]:
    """What the network sees of an image that is shrunk to a longest side, placed in the image itself."""
    height, width = pixels.shape[:2]
    factor = longest_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)
    views = inference.views(network, network.preprocess(image_tensor(small, network.device)))
    across, down = width / size[0], height / size[1]

    def enlarged(grid: Grid, scale: float) -> Grid:
        return Grid(grid.stride * scale, grid.offset * scale + (scale - 1) / 2)

    placed = []
    for view in views:
        rows, columns = by_side(view.grid)
        placed.append(replace(view, grid=(enlarged(rows, down), enlarged(columns, across))))
    return placed


def _probabilities(inference: Inference, views: Sequence[View], width: int) -> ClassProbabilities:
    """The merged probabilities at the positions of the first view."""
    logits, grid = views[0].logits, views[0].grid
    merged = inference.merged(views, *by_side(grid), (logits.shape[-2], logits.shape[-1]), width)[0]
    values = merged if inference.averages_probabilities else merged.softmax(0)
    if not values.isfinite().all():
        raise InputError("the class probabilities are not finite: the network's logits are too large")
    return ClassProbabilities(values.half().cpu().numpy(), grid)
