"""Masks: where one is kept (:class:`MaskRef`), how it is written (:class:`MaskForm`), and reading it as labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.images import JPEG_FORMATS, open_with_pillow
from atrous.data.files.limits import read_file
from atrous.errors import InputError
from atrous.labels import IGNORE, VOID_COLOR, Color, LabelSet, Mask, labels_from_colors

Encoding = Literal["index", "rgb"]
Orientation = Literal["upright", "stored"]


class MaskError(InputError):
    """A mask that can't be read as labels; the message names the file, what was found and how to fix it."""


@dataclass(frozen=True)
class MaskForm:
    """How the masks of a dataset are written.

    Args:
        label_set: the classes.
        encoding: ``index`` (palette and grey images: the value is the class) or ``rgb`` (the colour is the class, by
            the label set's colours; VOC's cream is void).
        values: the value on disk of each class; 0, 1, 2, … when left out.
        ignore: values on disk, or colours of RGB masks, of ignored pixels. 255 is one unless it is a class.
        orientation: for images that EXIF turns, whether masks were drawn on the image as it is shown (``upright``) or
            on its pixels as they are stored (``stored``); None if only sizes can tell.
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
        """For each value of an index mask ``(256,)`` its label, and 1 if it has no meaning, else 0."""
        table, unknown = np.arange(256, dtype=np.uint8), np.ones(256, np.uint8)
        for value, label in self.values_on_disk().items():
            table[value], unknown[value] = label, 0
        return table, unknown

    def colors_on_disk(self) -> dict[Color, int]:
        """What each colour of an RGB mask means: a class, or 255."""
        meanings = {VOID_COLOR: IGNORE} | {color: label for label, color in enumerate(self.label_set.colors)}
        return meanings | {color: IGNORE for color in self.ignore if isinstance(color, tuple)}


class MaskHeader(NamedTuple):
    """What the header of a mask contains: height and width, Pillow's mode, and whether it is a JPEG."""

    size: tuple[int, int]
    mode: str = "L"
    is_jpeg: bool = False


@dataclass(frozen=True, eq=False)
class DecodedMask:
    """A mask as it is stored: where it comes from, and its pixels in Pillow's mode.

    Args:
        name: for messages.
        image: the pixels.
        is_jpeg: whether they were compressed as a JPEG, which changes labels along every edge.
    """

    name: str
    image: Image.Image
    is_jpeg: bool = False

    def values(self) -> Mask:
        """The values of an index mask, uint8 ``(H, W)``.

        Raises:
            MaskError: a JPEG, a coloured image, or values that are not uint8.
        """
        self._refuse_jpeg()
        values, mode = np.asarray(self.image), self.image.mode
        if values.ndim != 2:
            raise MaskError(
                f"{self.name}: an image of mode {mode}, expected a palette or grey mask whose values are the classes; "
                'if its colours are the classes, declare encoding = "rgb" and colors = [...] in labels.toml'
            )
        if values.dtype == np.uint8:
            return values
        low, high = values.min(), values.max()
        if low >= 0 and high <= IGNORE and (values == values.astype(np.uint8)).all():
            return values.astype(np.uint8)
        raise MaskError(
            f"{self.name}: an image of mode {mode} with values from {low} to {high}, expected integers, classes or "
            f"{IGNORE}; save it again as an 8-bit PNG of class numbers, void as {IGNORE}"
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
                f"{self.name}: a JPEG image, which changes labels along every edge; export the mask again as PNG"
            )


@dataclass(frozen=True)
class MaskRef(ABC):
    """Where a mask is kept: a value that costs nothing, can be compared and hashed, and is opened when it is needed.

    Args:
        path: the file that contains it.
    """

    path: Path
    expected: ClassVar[str] = "a PNG"
    """What should be in its place if it is missing."""

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether it is there, readable or not."""
        return self.path.is_file()

    def beside(self, folder: Path) -> Self:
        """The mask of the same file name in another folder."""
        return replace(self, path=folder / self.path.name)

    @abstractmethod
    def header(self) -> MaskHeader:
        """Its size and mode, without decoding it where that is possible.

        Raises:
            Whatever its decoder raises; :meth:`open` turns the same into a message.
        """

    @abstractmethod
    def decode(self) -> DecodedMask:
        """Decode it.

        Raises:
            Whatever its decoder raises; :meth:`open` turns the same into a message.
        """

    def open(self) -> DecodedMask:
        """Decode it.

        Raises:
            MaskError: missing or unreadable.
        """
        try:
            return self.decode()
        except FileNotFoundError as error:
            raise MaskError(f"{self}: there is no such mask") from error
        except InputError as error:
            raise MaskError(f"{self}: {error}") from error
        except Exception as error:  # a damaged file can raise nearly anything inside a decoder
            raise MaskError(f"{self}: not a readable image ({error}); expected a PNG mask, save it again") from error


class MaskFile(MaskRef):
    """A mask in an image file: a PNG, or another lossless format."""

    def header(self) -> MaskHeader:
        with open_with_pillow(self.path) as image:
            return MaskHeader((image.height, image.width), image.mode, image.format in JPEG_FORMATS)

    def decode(self) -> DecodedMask:
        with open_with_pillow(read_file(self.path)) as image:
            image.load()
            return DecodedMask(str(self), image, image.format in JPEG_FORMATS)


def read_mask(ref: MaskRef, form: MaskForm) -> Mask:
    """Read a mask as labels: uint8 ``(H, W)``, values below ``len(form.label_set)`` or 255.

    Args:
        ref: where it is kept.
        form: how it is written; a value or colour that has no meaning in it is an error.

    Raises:
        MaskError: missing, unreadable, a JPEG, written in another form, or values outside the classes.
    """
    mask = ref.open()
    return _from_colors(mask, form) if form.encoding == "rgb" else _from_values(mask, form)


def _from_values(mask: DecodedMask, form: MaskForm) -> Mask:
    values = mask.values()
    table, unknown = form.tables
    if cv2.LUT(values, unknown).any():  # OpenCV's look-up is ten times quicker than indexing
        shown = ", ".join(str(value) for value in np.unique(values) if unknown[value])
        raise MaskError(
            f"{mask.name}: value(s) {shown} belong to no class; expected {_in_ranges(form.values_on_disk())}. "
            f"Correct the mask; in a folder dataset, labels.toml can name more classes, or declare ignore = [{shown}]"
        )
    return np.asarray(cv2.LUT(values, table), np.uint8)


def _in_ranges(values: Iterable[int]) -> str:
    """Values in short: ``0–20 or 255``."""
    numbered = enumerate(sorted(values))
    runs = [[value for _, value in run] for _, run in groupby(numbered, lambda place: place[1] - place[0])]
    *first, last = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return f"{', '.join(first)} or {last}" if first else last


def _from_colors(mask: DecodedMask, form: MaskForm) -> Mask:
    labels, unknown = labels_from_colors(mask.colors(), form.colors_on_disk())
    if unknown:
        shown = ", ".join(str(list(color)) for color in sorted(unknown)[:5])
        raise MaskError(
            f"{mask.name}: {len(unknown)} colour(s) that belong to no class (first: {shown}); in labels.toml list "
            "them under colors, or under ignore"
        )
    return labels
