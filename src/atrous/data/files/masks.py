"""Reading masks: palette, index and declared-RGB images and matrices become uint8 labels, 255 for ignored pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.coco_json import annotated
from atrous.data.files.images import JPEG_FORMATS, open_with_pillow
from atrous.data.files.matlab import MatrixError, read_matrix
from atrous.errors import InputError
from atrous.labels import IGNORE, VOID_COLOR, Color, LabelSet, Mask, labels_from_colors

Encoding = Literal["index", "rgb"]
Orientation = Literal["upright", "stored"]


class MaskError(InputError):
    """A mask that can't be read as labels; the message names the file, what was found and how to mend it."""


@dataclass(frozen=True)
class MaskForm:
    """How the masks of a dataset are written.

    Args:
        label_set: the classes.
        encoding: ``index`` (palette and grey images: the value is the class) or ``rgb`` (the colour is the class, by
            the label set's colours; VOC's cream is void).
        values: the value on disk of each class; 0, 1, 2, … when left out.
        ignore: values on disk, or colours of RGB masks, that nobody judges. 255 is one unless a class has it.
        orientation: for images that EXIF turns, whether masks were drawn on the image as it is shown (``upright``) or
            on its pixels as they are stored (``stored``); None where sizes must tell.
    """

    label_set: LabelSet
    encoding: Encoding = "index"
    values: tuple[int, ...] = ()
    ignore: tuple[int | Color, ...] = ()
    orientation: Orientation | None = None

    def values_on_disk(self) -> dict[int, int]:
        """What each value of an index mask means: a class, or 255."""
        meanings = {IGNORE: IGNORE}
        meanings |= {value: label for label, value in enumerate(self.values or range(len(self.label_set)))}
        return meanings | {value: IGNORE for value in self.ignore if isinstance(value, int)}

    @cached_property
    def tables(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """For each value of an index mask ``(256,)`` its label, and whether it means nothing, 1 or 0."""
        table, unknown = np.arange(256, dtype=np.uint8), np.ones(256, np.uint8)
        for value, label in self.values_on_disk().items():
            table[value], unknown[value] = label, 0
        return table, unknown

    def colors_on_disk(self) -> dict[Color, int]:
        """What each colour of an RGB mask means: a class, or 255."""
        meanings = {VOID_COLOR: IGNORE} | {color: label for label, color in enumerate(self.label_set.colors)}
        return meanings | {color: IGNORE for color in self.ignore if isinstance(color, tuple)}


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A decoded mask as it stands on disk: where it is, its pixels in whatever form, and the file's format."""

    path: Path
    image: Image.Image
    format: str | None

    @property
    def is_jpeg(self) -> bool:
        return self.format in JPEG_FORMATS

    def values(self) -> Mask:
        """The values of an index mask, uint8 ``(H, W)``.

        Raises:
            MaskError: a JPEG, a coloured image, or values that are no uint8.
        """
        self._refuse_jpeg()
        values, mode = np.asarray(self.image), self.image.mode
        if values.ndim != 2:
            raise MaskError(
                f"{self.path}: a {mode} image, expected a palette or grey mask whose values are the classes; "
                'if its colours are the classes, say so: encoding = "rgb" and colors = [...] in labels.toml'
            )
        if values.dtype == np.uint8:
            return values
        low, high = values.min(), values.max()
        if low >= 0 and high <= IGNORE and (values == values.astype(np.uint8)).all():
            return values.astype(np.uint8)
        raise MaskError(
            f"{self.path}: a {mode} image with values from {low} to {high}, expected integers, classes or "
            f"{IGNORE}; write it again as an 8-bit PNG of class numbers, void as {IGNORE}"
        )

    def colors(self) -> NDArray[np.uint8]:
        """The colours of a mask of any mode, uint8 ``(H, W, 3)``.

        Raises:
            MaskError: a JPEG.
        """
        self._refuse_jpeg()
        return np.asarray(self.image.convert("RGB"))

    def _refuse_jpeg(self) -> None:
        if self.is_jpeg:
            raise MaskError(
                f"{self.path}: a JPEG image, which changes labels along every edge; export the mask again as PNG"
            )


def open_mask(path: Path) -> MaskFile:
    """Decode a mask, whatever its form: an image, the matrix in a ``.mat`` file, or what COCO's annotations tell.

    Raises:
        MaskError: missing or unreadable.
    """
    try:
        if path.suffix == ".mat":
            return MaskFile(path, Image.fromarray(read_matrix(path)), "MAT")
        if drawing := annotated(path):
            return MaskFile(path, Image.fromarray(drawing.mask()), "COCO")
        with open_with_pillow(path.read_bytes()) as image:
            image.load()
            return MaskFile(path, image, image.format)
    except FileNotFoundError as error:
        raise MaskError(f"{path}: there is no such mask") from error
    except MatrixError as error:
        raise MaskError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise MaskError(f"{path}: not a readable image ({error}); expected a PNG mask, write it again") from error


def mask_is_there(path: Path) -> bool:
    """Whether a mask has a file, or annotations."""
    return path.is_file() or annotated(path) is not None


def read_mask(path: Path, form: MaskForm) -> Mask:
    """Read a mask as labels: uint8 ``(H, W)``, values below ``len(form.labels)`` or 255.

    Args:
        path: a PNG (or another lossless image).
        form: how it is written; what it does not name is an error.

    Raises:
        MaskError: missing, unreadable, a JPEG, a form that was not declared, or values outside the classes.
    """
    file = open_mask(path)
    return _from_colors(file, form) if form.encoding == "rgb" else _from_values(file, form)


def _from_values(file: MaskFile, form: MaskForm) -> Mask:
    values = file.values()
    table, unknown = form.tables
    if cv2.LUT(values, unknown).any():  # OpenCV's look-up is ten times quicker than indexing
        shown = ", ".join(str(value) for value in np.unique(values) if unknown[value])
        raise MaskError(
            f"{file.path}: value(s) {shown} belong to no class; expected {_in_ranges(form.values_on_disk())}. "
            f"Mend the mask; for a folder dataset, labels.toml may name more classes, or say ignore = [{shown}]"
        )
    return np.asarray(cv2.LUT(values, table), np.uint8)


def _in_ranges(values: Iterable[int]) -> str:
    """Values for a person: ``0–20 or 255``."""
    numbered = enumerate(sorted(values))
    runs = [[value for _, value in run] for _, run in groupby(numbered, lambda place: place[1] - place[0])]
    *first, last = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return f"{', '.join(first)} or {last}" if first else last


def _from_colors(file: MaskFile, form: MaskForm) -> Mask:
    mask, strangers = labels_from_colors(file.colors(), form.colors_on_disk())
    if strangers:
        shown = ", ".join(str(list(color)) for color in sorted(strangers)[:5])
        raise MaskError(
            f"{file.path}: {len(strangers)} colour(s) that belong to no class (first: {shown}); in labels.toml list "
            "them under colors, or under ignore"
        )
    return mask
