"""Refining any program's class predictions (files of probabilities, logits or labels) with a dense CRF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from atrous.crf.dense_crf import DenseCRF
from atrous.crf.unary import unary_from_labels, unary_from_logits, unary_from_probabilities
from atrous.data.files.find import FoundImage
from atrous.data.files.images import DecodedImage, open_with_pillow
from atrous.data.files.limits import read_arrays, read_file
from atrous.errors import InputError
from atrous.grid import PIXELS, Grid, resample
from atrous.inference.batch import Report, label_files
from atrous.inference.predictor import Segmentation
from atrous.inference.results import OutputOptions
from atrous.labels import IGNORE, LabelSet

Kind = Literal["probabilities", "logits"]
LARGEST_LABEL = 20
"""A PNG of probabilities whose largest value is at most this, of 255, is taken for one of labels."""
ENDINGS = (".probabilities.npz", ".npz", ".npy", ".png")


class PredictionError(InputError):
    """A file of class predictions that can't be used; the message says what it contains and what was expected."""


def refine_files(
    inputs: Sequence[str | Path],
    predictions: str | Path,
    out: str | Path,
    crf: DenseCRF,
    *,
    label_set: LabelSet | None = None,
    kind: Kind = "probabilities",
    confidence: float | None = None,
    outputs: OutputOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Refine any program's class predictions with a CRF, and write masks and overlays as ``predict`` does.

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
        outputs: what is written beside the masks; overlays by default.
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

    def refine(image: FoundImage, decoded: DecodedImage) -> Segmentation:
        size = (decoded.pixels.shape[0], decoded.pixels.shape[1])
        file = _find_predictions(folder, image)
        try:
            unary, names = _read_unary(file, size, kind, confidence, label_set)
            labels = crf.labels(decoded.pixels, unary)
        except (ValueError, OSError, UnidentifiedImageError) as error:
            raise PredictionError(f"{file}: {error}") from error
        known = label_set or names or LabelSet.numbered(len(unary))
        return Segmentation(labels.astype(np.uint8), decoded.pixels, known, decoded.notes)

    return label_files(inputs, out, refine, outputs=outputs or OutputOptions(), progress=progress)


def _find_predictions(folder: Path, image: FoundImage) -> Path:
    base = folder / image.relative.with_suffix("")
    for ending in ENDINGS:
        if (file := base.with_name(base.name + ending)).is_file():
            return file
    raise PredictionError(f"no predictions {base} with one of the endings {', '.join(ENDINGS)}")


def _read_unary(
    file: Path, size: tuple[int, int], kind: Kind, confidence: float | None, label_set: LabelSet | None
) -> tuple[NDArray[np.float32], LabelSet | None]:
    """Read unary energies ``(C, H, W)``, and the class names if the file contains them."""
    if file.suffix == ".png":
        unary = _from_png(file, size, confidence, label_set)
        return unary, None
    stored = read_arrays(file)
    if file.suffix == ".npy" and "" in stored:
        return _from_array(stored[""], size, kind, confidence), None
    if {"probabilities", "names", "stride", "offset"} <= stored.keys():
        grid = Grid(float(stored["stride"]), float(stored["offset"]))
        coarse = torch.from_numpy(stored["probabilities"].astype(np.float32))[None]
        if tuple(stored["size"]) != size:
            raise InputError(
                f"predictions for an image of {tuple(stored['size'])}, but the image is {size} (height, width)"
            )
        full = resample(coarse, grid, PIXELS, size)[0].numpy()
        names = LabelSet(tuple(str(name) for name in stored["names"]))
        return unary_from_probabilities(full), names
    if len(stored) != 1:
        raise InputError(f"contains the arrays {', '.join(stored)}; expected a single one (C, H, W)")
    return _from_array(next(iter(stored.values())), size, kind, confidence), None


def _from_array(
    array: NDArray[Any], size: tuple[int, int], kind: Kind, confidence: float | None
) -> NDArray[np.float32]:
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[1:] != size:
        swapped = array.ndim == 3 and array.shape[1:] == size[::-1]
        last = array.ndim == 3 and array.shape[:2] == size
        hint = ": did you swap height and width?" if swapped else ": put the classes first" if last else ""
        raise InputError(f"expected (classes, {size[0]}, {size[1]}) for this image, found {array.shape}{hint}")
    if array.dtype.kind != "f":
        raise InputError(f"expected floating {kind}, found {array.dtype}")
    if confidence is not None:
        raise InputError(f"a confidence is for hard labels (PNG); this file contains {kind}")
    make = unary_from_probabilities if kind == "probabilities" else unary_from_logits
    return make(array.astype(np.float32))


def _from_png(
    file: Path, size: tuple[int, int], confidence: float | None, label_set: LabelSet | None
) -> NDArray[np.float32]:
    with open_with_pillow(read_file(file)) as image:
        if image.mode not in ("L", "P", "I;16", "I", "1"):
            raise InputError(f"expected a greyscale PNG, not {image.mode}")
        values = np.asarray(image)
        deep = image.mode in ("I;16", "I")
    if values.shape != size:
        swapped = ": did you swap height and width?" if values.shape == size[::-1] else ""
        raise InputError(f"expected {size} (height, width) like the image, found {values.shape}{swapped}")
    if confidence is not None:
        known = values[values != IGNORE]
        classes = len(label_set) if label_set else max(2, int(known.max(initial=0)) + 1)
        return unary_from_labels(values, classes, confidence=confidence)
    if 0 < int(values.max(initial=0)) <= LARGEST_LABEL:
        raise InputError(
            f"its largest value is {values.max()}: these look like labels, which need --confidence; the probability of "
            f"class 1 is expected, which is {65535 if deep else 255} for certainty"
        )
    probability = values.astype(np.float32) / (65535 if deep else 255)
    return unary_from_probabilities(np.stack([1 - probability, probability]))
