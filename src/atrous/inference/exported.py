"""Predicting with an exported model: what its file can do, and an error in words for what it can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.image_form import ImageForm
from atrous.data.files.images import DecodedImage
from atrous.errors import InputError
from atrous.grid import PIXELS
from atrous.inference.segmentation import ClassProbabilities, Segmentation
from atrous.inference.sources import check_pixels
from atrous.runtime.machine import file_hash, key_of

if TYPE_CHECKING:  # an exported model needs no torch; a CRF does
    import torch

    from atrous.inference.large import Large
    from atrous.inference.test_time import Inference
    from atrous.runtime.exported import ExportedModel


class ExportedPredictor:
    """An exported model in the place of a :class:`~atrous.inference.predictor.Predictor`.

    Args:
        model: opened by :func:`atrous.load`.
        device: the CPU, where exported models run.
        output_stride: that of the file.
        precision: that of the file, whichever it is: ``auto``.

    Raises:
        InputError: another device, output stride or precision than the file's.
    """

    def __init__(
        self,
        model: ExportedModel,
        *,
        device: torch.device | str | None = None,
        output_stride: int | None = None,
        precision: str = "auto",
    ) -> None:
        require_cpu(model, device)
        require_output_stride(model, output_stride)
        if precision not in ("auto", "float32"):
            raise InputError(
                f"the precision of {model.file} was fixed when it was exported, and can't be {precision}: use the "
                "model's own folder"
            )
        self.model = model
        self.label_set = model.label_set
        self.in_channels = model.in_channels
        self.images = ImageForm(model.in_channels, color=model.in_channels == 3)
        self.batches_pay = False  # it runs on the CPU

    def settings_hash(self, inference: Inference | None, bands: tuple[int, ...] | None = None) -> str:
        """Hash all that the labels depend on besides the image: the file, the runtime, the CRF and the bands read."""
        crf = inference.crf if inference else None
        described = crf and (repr(crf.kernels), crf.iterations, crf.normalization, crf.order, crf.tolerance)
        return key_of(file_hash(self.model.file), self.model.runtime, described, bands)[:16]

    def no_tiles(self) -> InputError:
        """Why large rasters are not labelled, nor images shrunk."""
        return InputError(
            f"{self.model.file} gives labels and no logits, which tiles are blended from and labels of shrunk images "
            "drawn from: use the model's own folder"
        )

    def labels(self, images: NDArray[np.uint8], inference: Inference | None = None) -> NDArray[np.uint8]:
        """Find the class of every pixel of some images of one size: uint8 ``(N, H, W, C)`` → uint8 ``(N, H, W)``.

        Raises:
            InputError: another shape or dtype, or scales, mirror images or a CRF that the file can't take.
        """
        check_pixels(images, "N, H, W", self.images)
        check_inference(self.model, inference)
        if inference is None or not inference.crf:
            return self.model.labels(images)
        return np.stack([self.segment(DecodedImage(image), inference).labels for image in images])

    def segment(
        self,
        decoded: DecodedImage,
        inference: Inference | None = None,
        keep_probabilities: bool = False,
        large: Large | None = None,
    ) -> Segmentation:
        """Find the class of every pixel of a decoded image.

        Args:
            decoded: the image, uint8 ``(H, W, C)``.
            inference: a single view, with or without a CRF.
            keep_probabilities: keep the class probabilities, at the image's size and before any CRF.
            large: tiles and a longest side are refused; an exported file labels an image as a whole, as it is.

        Raises:
            InputError: scales or mirror images, or a CRF or probabilities of a file that computes labels alone.
        """
        if large and (large.tiling or large.longest_side):
            raise self.no_tiles()
        check_inference(self.model, inference)
        crf = inference.crf if inference else None
        if not (crf or keep_probabilities):
            labels, kept = self.model.labels(decoded.pixels[None])[0], None
        else:
            found = self.model.labels_and_probabilities(decoded.pixels[None])
            labels, probabilities = found[0][0], found[1][0]
            kept = ClassProbabilities(probabilities.astype(np.float16), PIXELS) if keep_probabilities else None
            if crf:
                from atrous.crf.unary import unary_from_probabilities

                labels = np.asarray(crf.labels(decoded.pixels, unary_from_probabilities(probabilities)), np.uint8)
        return Segmentation(labels, shown_pixels(decoded.pixels), self.label_set, decoded.notes, kept)


def require_cpu(model: ExportedModel, device: object) -> None:
    """Refuse another device than the CPU, where exported models run.

    Raises:
        InputError: another device.
    """
    if device is not None and str(device) != "cpu":
        raise InputError(f"{model.file} runs on the CPU, not on '{device}'; for a GPU, use the model's own folder")


def require_output_stride(model: ExportedModel, output_stride: int | None) -> None:
    """Refuse another output stride than the file's.

    Raises:
        InputError: another output stride.
    """
    if output_stride not in (None, model.output_stride):
        raise InputError(
            f"{model.file} was exported at output stride {model.output_stride}, not {output_stride}: export it again "
            "at that stride, or use the model's own folder"
        )


def check_outputs(model: ExportedModel, *, probabilities: bool, attention_maps: bool) -> None:
    """Refuse results that an exported file can't give.

    Raises:
        InputError: probabilities of a file that computes labels alone, or attention maps.
    """
    if attention_maps:
        raise InputError(f"{model.file} gives no attention over scales: use the model's own folder for attention maps")
    if probabilities and not model.has_probabilities:
        raise InputError(f"{model.file} computes labels alone: export the model again with --probabilities")


def check_inference(model: ExportedModel, inference: Inference | None) -> None:
    """Refuse test-time views that an exported file can't be run on.

    Raises:
        InputError: several scales, another than 1, mirror images, or a CRF where the file computes no probabilities.
    """
    if inference is None:
        return
    if not inference.single_view or inference.scales != (1.0,):
        raise InputError(
            f"{model.file} gives the labels of an image as it is, and no logits to merge: leave out scales and flip "
            "(--scales, --flip, --merge), or use the model's own folder"
        )
    if inference.crf and not model.has_probabilities:
        raise InputError(
            f"{model.file} computes labels alone, and a CRF needs class probabilities: export the model again with "
            "--probabilities, or use the model's own folder"
        )
