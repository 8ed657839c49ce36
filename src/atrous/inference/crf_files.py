"""Refining any program's class predictions (files of probabilities, logits or labels) with a dense CRF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from atrous.crf.dense_crf import DenseCRF
from atrous.data.files.find import FoundImage
from atrous.data.files.images import DecodedImage
from atrous.data.files.mask_form import Orientation
from atrous.errors import InputError
from atrous.inference.batch import Report, label_files, torch_processors
from atrous.inference.prediction_files import Kind, PredictionError, PredictionReader
from atrous.inference.results import OutputOptions
from atrous.inference.segmentation import Segmentation
from atrous.labels import LabelSet

ENDINGS = (".probabilities.npz", ".npz", ".npy", ".png")


def refine_files(
    inputs: Sequence[str | Path],
    predictions: str | Path,
    out: str | Path,
    crf: DenseCRF,
    *,
    label_set: LabelSet | None = None,
    kind: Kind = "probabilities",
    confidence: float | None = None,
    orientation: Orientation | None = None,
    outputs: OutputOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Refine any program's class predictions with a CRF, and write masks as ``predict`` does.

    The predictions of ``photos/sub/x.jpg`` are ``PREDICTIONS/sub/x`` with one of these endings:

    - ``.npy``: floating ``(C, H, W)``, of the image's own size.
    - ``.npz``: the same as its only array; or what ``atrous predict --probabilities`` writes, at any resolution.
    - ``.png``: greyscale, 8 or 16 bits, the probability of class 1 of two; with ``confidence``, hard labels instead,
      255 for unknown.

    Args:
        inputs: images, folders or patterns.
        predictions: folder of the predictions.
        out: folder of the results.
        crf: what refines them.
        label_set: names and colours; by default those in the file, or numbers.
        kind: what ``.npy`` and ``.npz`` contain: probabilities, which sum to 1, or logits.
        confidence: probability that a hard label is right, between 0 and 1.
        orientation: for images that EXIF turns, whether the predictions were made on the image as it is shown
            (``upright``) or on its pixels as they are stored (``stored``). By default sizes decide; an image for which
            they can't is in ``failed``.
        outputs: what is written beside the masks; nothing by default.
        progress: called with the number of finished images and their total.

    Returns:
        What was done; an image whose predictions are missing or wrong is in ``failed``, and the rest continues.

    Raises:
        PredictionError: ``predictions`` is not a folder.
        ImageError: there is no image in the inputs.
    """
    folder = Path(predictions)
    if not folder.is_dir():
        raise PredictionError(
            f"{folder} is not a folder; --predictions expects one with a file of predictions for each image"
        )

    read = PredictionReader(kind, confidence, label_set, orientation)

    def refine(image: FoundImage, decoded: DecodedImage) -> Segmentation:
        size = (decoded.pixels.shape[0], decoded.pixels.shape[1])
        file = _find_predictions(folder, image)
        unary = read(file, size, decoded.orientation)
        try:
            labels = crf.labels(decoded.pixels, unary.energies)
        except InputError as error:
            raise PredictionError(f"{file}: {error}") from error
        known = label_set or unary.label_set or LabelSet.numbered(len(unary.energies))
        return Segmentation(labels.astype(known.dtype), decoded.pixels, known, (*decoded.notes, *unary.notes))

    with torch_processors(torch.device("cpu")) as processors:
        return label_files(
            inputs, out, refine, outputs=outputs or OutputOptions(), processors=processors, progress=progress
        )


def _find_predictions(folder: Path, image: FoundImage) -> Path:
    base = folder / image.relative.with_suffix("")
    for ending in ENDINGS:
        if (file := base.with_name(base.name + ending)).is_file():
            return file
    raise PredictionError(f"no predictions {base} with one of the endings {', '.join(ENDINGS)}")
