"""Reading any program's class predictions (files of probabilities, logits or labels) as the unary of a dense CRF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from atrous.crf.unary import unary_from_labels, unary_from_logits, unary_from_probabilities
from atrous.data.files.exif import turn_array
from atrous.data.files.limits import read_arrays, read_file
from atrous.data.files.mask_form import Orientation
from atrous.data.files.orientation import Size, agreement
from atrous.data.files.pillow import open_with_pillow
from atrous.errors import AtrousError, InputError
from atrous.files import refuse_newer
from atrous.grid import PIXELS, Grid, Grids, resample
from atrous.inference.results import PROBABILITIES_FORMAT
from atrous.labels import IGNORE, LabelSet

Kind = Literal["probabilities", "logits"]
LARGEST_LABEL = 20
"""A PNG of probabilities whose largest value, apart from 255, is at most this is taken for one of labels."""
MAX_CLASSES = 255
_OURS = frozenset(("probabilities", "names", "size", "stride", "offset"))


class PredictionError(InputError):
    """A file of class predictions that can't be used; the message says what it contains and what was expected."""


class Unary(NamedTuple):
    """The unary of one image.

    Args:
        energies: float32 ``(C, H, W)``.
        label_set: the classes, if the file names them.
        notes: remarks on how the file was read.
    """

    energies: NDArray[np.float32]
    label_set: LabelSet | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictionReader:
    """Reads a file of class predictions for an image.

    Args:
        kind: what ``.npy`` and ``.npz`` contain: probabilities, which sum to 1, or logits.
        confidence: probability that a hard label is right, between 0 and 1; PNGs are hard labels then.
        label_set: the classes, if they are known.
        orientation: for images that EXIF turns, whether predictions were made on the image as it is shown
            (``upright``) or on its pixels as they are stored (``stored``); None if only sizes can tell.
    """

    kind: Kind = "probabilities"
    confidence: float | None = None
    label_set: LabelSet | None = None
    orientation: Orientation | None = None

    def __call__(self, file: Path, size: Size, turned: int) -> Unary:
        """Read a file.

        Args:
            file: ``.npy``, ``.npz`` or ``.png``.
            size: height and width of the upright image.
            turned: EXIF orientation of the image, 1 to 8.

        Raises:
            PredictionError: whatever is wrong with it; the message names the file.
        """
        try:
            found = self._read(file, size, turned)
            self._check_classes(len(found.energies), found.label_set)
        except (AtrousError, OSError) as error:
            raise PredictionError(f"{file}: {error}") from error
        return found

    def _read(self, file: Path, size: Size, turned: int) -> Unary:
        if file.suffix == ".png":
            return self._from_labels_or_grey(_read_png(file), size, turned)
        stored = read_arrays(file)
        if _OURS & stored.keys() >= {"probabilities", "names"}:
            return _from_ours(stored, size)
        if len(stored) != 1:
            raise InputError(f"contains the arrays {', '.join(stored)}; expected a single one (C, H, W)")
        return self._from_array(next(iter(stored.values())), size, turned)

    def _from_array(self, array: NDArray[Any], size: Size, turned: int) -> Unary:
        if array.dtype.kind != "f":
            raise InputError(f"expected floating {self.kind}, found {array.dtype}")
        if array.ndim == 4 and len(array) == 1:
            array = array[0]
        if array.ndim != 3:
            raise InputError(f"expected (classes, {size[0]}, {size[1]}) for this image, found {array.shape}")
        if len(array) > MAX_CLASSES and array.shape[1:] == size:
            raise InputError(f"contains {len(array)} classes, expected at most {MAX_CLASSES}")
        array, notes = self._upright(array, size, turned)
        if self.confidence is not None:
            raise InputError(f"a confidence is for hard labels (PNG); this file contains {self.kind}")
        make = unary_from_probabilities if self.kind == "probabilities" else unary_from_logits
        with np.errstate(over="ignore"):  # what overflows is refused as infinite
            return Unary(make(array.astype(np.float32)), None, notes)

    def _from_labels_or_grey(self, png: _Png, size: Size, turned: int) -> Unary:
        values, notes = self._upright(png.values, size, turned)
        if self.confidence is not None:
            known = values[values != IGNORE]
            highest = int(known.max(initial=0))
            if highest >= MAX_CLASSES:
                raise InputError(f"contains the label {highest}; labels are 0 to {MAX_CLASSES - 1}, or 255 for unknown")
            classes = len(self.label_set) if self.label_set else max(2, highest + 1)
            return Unary(unary_from_labels(values, classes, confidence=self.confidence), None, notes)
        if why := png.looks_like_labels():
            raise InputError(
                f"{why}: these look like labels, which need --confidence; a grey image with the probability of class 1 "
                f"is expected, which is {png.certain} for certainty"
            )
        probability = values.astype(np.float32) / png.certain
        return Unary(unary_from_probabilities(np.stack([1 - probability, probability])), None, notes)

    def _upright(self, array: NDArray[Any], size: Size, turned: int) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Turn predictions ``(..., H, W)`` as their image is turned, if they were made on its pixels as stored."""
        height, width = array.shape[-2:]
        declared = self.orientation
        if declared is None and size != size[::-1] and (height, width) != size:
            declared = "stored"  # as the size shows
        found = agreement((height, width), size, turned, declared)
        if found == "fits":
            return array, ()
        if found == "turn it":
            note = "its predictions were made on the pixels as they are stored, and were turned upright as EXIF says"
            return turn_array(array, turned), (note,)
        if found == "unclear":
            raise InputError(
                "EXIF turns the image, and sizes can't show whether the predictions were made on it as it is shown "
                "(--orientation upright) or on its pixels as they are stored (--orientation stored)"
            )
        if found == "drawn otherwise":
            drawn = "as it is shown" if (height, width) == size else "as its pixels are stored"
            raise InputError(
                f"EXIF turns the image, and the predictions were made on it {drawn}, not as declared "
                f"(--orientation {self.orientation})"
            )
        raise InputError(_other_size(array.shape, size))

    def _check_classes(self, count: int, named: LabelSet | None) -> None:
        known = self.label_set or named
        if known and len(known) != count:
            raise InputError(f"contains {count} classes, but {len(known)} names: {', '.join(known.names)}")


class _Png(NamedTuple):
    """A decoded PNG: its values ``(H, W)``, the value of certainty, and whether they are indices into colours."""

    values: NDArray[Any]
    certain: int
    coloured: bool

    def looks_like_labels(self) -> str:
        """Why the values are probably labels instead of probabilities; empty if they are not."""
        if self.coloured:
            return "it is a palette image with colours"
        known = self.values[self.values != IGNORE]
        largest = int(known.max(initial=0))
        return f"its largest value is {largest}" if 0 < largest <= LARGEST_LABEL else ""


def _read_png(file: Path) -> _Png:
    data = read_file(file)
    try:
        with open_with_pillow(data) as checked:
            checked.verify()  # the checksums, which loading ignores
        with open_with_pillow(data) as image:
            if image.format != "PNG" or image.mode not in ("L", "P", "I;16", "I", "1"):
                raise InputError(f"expected a greyscale PNG, not a {image.format} of mode {image.mode}")
            values = np.asarray(image)
            deep, palette = image.mode in ("I;16", "I"), image.getpalette() if image.mode == "P" else None
    except AtrousError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise InputError(f"not a readable PNG ({str(error) or type(error).__name__}); write it again") from error
    coloured = palette is not None and palette != [index for index in range(len(palette) // 3) for _ in range(3)]
    return _Png(values.astype(np.uint8) if values.dtype == bool else values, 65535 if deep else 255, coloured)


def _from_ours(stored: Mapping[str, NDArray[Any]], size: Size) -> Unary:
    """The unary of what ``atrous predict --probabilities`` writes; it is always upright."""
    if missing := sorted(_OURS - stored.keys()):
        raise InputError(f"the array(s) {', '.join(missing)} of `atrous predict --probabilities` are missing")
    if "format" in stored:
        refuse_newer(int(_numbers(stored, "format", 1)[0]), PROBABILITIES_FORMAT, "the file", PredictionError)
    values, names = stored["probabilities"], stored["names"]
    if values.ndim != 3 or values.dtype.kind != "f" or not values.size:
        raise InputError(f"probabilities are {values.dtype} {values.shape}, expected floating (classes, h, w)")
    if names.shape != (len(values),) or names.dtype.kind != "U":
        raise InputError(f"names are {names.dtype} {names.shape}, expected {len(values)} strings")
    made_for = _numbers(stored, "size", 2)
    if made_for != list(size):
        raise InputError(f"predictions for an image of {tuple(made_for)}, but the image is {size} (height, width)")
    coarse = torch.from_numpy(values.astype(np.float32))[None]
    full = resample(coarse, _grids(stored), PIXELS, size)[0].numpy()
    return Unary(unary_from_probabilities(full), LabelSet(tuple(str(name) for name in names)))


def _grids(stored: Mapping[str, NDArray[Any]]) -> Grids:
    """Where probabilities sit: stride and offset are one number each, or two, for rows and columns."""
    sides = 2 if stored["stride"].shape == (2,) else 1
    strides, offsets = _numbers(stored, "stride", sides), _numbers(stored, "offset", sides)
    if min(strides) <= 0:
        raise InputError(f"the stride is {min(strides):g}, expected a number of pixels above 0")
    rows, columns = Grid(float(strides[0]), float(offsets[0])), Grid(float(strides[-1]), float(offsets[-1]))
    return (rows, columns) if sides == 2 else rows


def _numbers(stored: Mapping[str, NDArray[Any]], name: str, count: int) -> list[float]:
    array = stored[name]
    if array.dtype.kind not in "iuf" or array.size != count or not np.isfinite(array).all():
        numbers = "a finite number" if count == 1 else f"{count} finite numbers"
        raise InputError(f"{name} is {array.dtype} {array.shape}, expected {numbers}")
    found: list[float] = array.reshape(-1).tolist()
    return found


def _other_size(shape: tuple[int, ...], size: Size) -> str:
    swapped = ": did you swap height and width?" if shape[-2:] == size[::-1] else ""
    if len(shape) == 2:
        return f"expected {size} (height, width) like the image, found {shape}{swapped}"
    hint = ": put the classes first" if shape[:2] == size else swapped
    return f"expected (classes, {size[0]}, {size[1]}) for this image, found {shape}{hint}"
