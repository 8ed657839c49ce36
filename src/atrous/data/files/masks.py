"""Masks: where one is kept (:class:`MaskRef`), how it is written (:class:`MaskForm`), and reading it as labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.codecs import grey_levels, lossy_codec
from atrous.data.files.find import is_file
from atrous.data.files.limits import read_file
from atrous.data.files.pillow import open_with_pillow
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
        known_colors: whether palette masks have the label set's colours, so that a palette in another order shows.
    """

    label_set: LabelSet
    encoding: Encoding = "index"
    values: tuple[int, ...] = ()
    ignore: tuple[int | Color, ...] = ()
    orientation: Orientation | None = None
    known_colors: bool = False

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

    def by_color(self) -> MaskForm:
        """The same classes, written as the label set's colours."""
        return replace(self, encoding="rgb", values=(), ignore=tuple(c for c in self.ignore if isinstance(c, tuple)))

    def by_grey(self) -> MaskForm:
        """The same classes, written as grey colours of their values."""
        grey = {value: (value, value, value) for value in range(256)}
        greys = tuple(grey[value] for value in self.values or range(len(self.label_set)))
        void = tuple(grey[value] for value, label in self.values_on_disk().items() if label == IGNORE)
        return replace(self.by_color(), label_set=LabelSet(self.label_set.names, greys), ignore=void)


class MaskHeader(NamedTuple):
    """What the header of a mask contains: height and width, Pillow's mode, and its lossy codec, if it has one."""

    size: tuple[int, int]
    mode: str = "L"
    lossy: str = ""


@dataclass(frozen=True, eq=False)
class DecodedMask:
    """A mask as it is stored: where it comes from, and its pixels in Pillow's mode.

    Args:
        name: for messages.
        image: the pixels.
        lossy: the codec that changed labels along every edge, such as JPEG; empty if the pixels are exact.
        levels: the largest grey value that pixels can have in the file: 1, 3 or 15 for 1, 2 or 4 bits.
    """

    name: str
    image: Image.Image
    lossy: str = ""
    levels: int = 255

    def values(self, form: MaskForm | None = None) -> Mask:
        """The values of an index mask, uint8 ``(H, W)``.

        Grey values of fewer bits than 8 are read as they are in the file, 0, 1, 2, …; if only the values that they are
        shown as have a meaning in the form (0 and 255 of 1 bit), these are given.

        Args:
            form: how it is written, where known.

        Raises:
            MaskError: lossy, a coloured image, or values that are not uint8.
        """
        self._refuse_lossy()
        values, mode = np.asarray(self.image), self.image.mode
        if values.ndim != 2:
            colors = self.colors()
            remedy = 'if its colours are the classes, declare encoding = "rgb" and colors = [...] in labels.toml'
            if colors.any() and (colors == colors[..., :1]).all():
                remedy = "its colours are greys: `atrous data check SPEC --fix NEW_FOLDER` writes them as values"
            raise MaskError(
                f"{self.name}: an image of mode {mode}, expected a palette or grey mask whose values are the classes; "
                f"{remedy}"
            )
        if self.levels < 255:
            return self._few_bits(values, form)
        if values.dtype == np.uint8:
            return values
        low, high = values.min(), values.max()
        if low >= 0 and high <= IGNORE and (values == values.astype(np.uint8)).all():
            return values.astype(np.uint8)
        white = form is not None and IGNORE in form.values  # declared as a class
        if white and np.isin(values, (0, 65535)).all():  # black and white of 16 bits
            return (values > 0).astype(np.uint8) * 255
        raise MaskError(
            f"{self.name}: an image of mode {mode} with values from {low} to {high}, expected integers, classes or "
            f"{IGNORE}; save it again as an 8-bit PNG of class numbers, void as {IGNORE}. If they number objects, as "
            "Cityscapes' instanceIds do (class × 1000 + object), use the masks of classes (labelIds) instead"
        )

    def _few_bits(self, shown: NDArray[np.generic], form: MaskForm | None) -> Mask:
        shown = shown.astype(np.uint8) * (255 if self.image.mode == "1" else 1)
        stored = np.rint(shown * (self.levels / 255)).astype(np.uint8)
        unknown = form.tables[1] if form and (form.values or form.ignore) else np.zeros(256, np.uint8)
        readings: tuple[Mask, Mask] = stored, shown
        return readings[int(unknown[stored].any() and not unknown[shown].any())]

    def colors(self) -> NDArray[np.uint8]:
        """The colours of a mask of any mode, uint8 ``(H, W, 3)``.

        Raises:
            MaskError: lossy.
        """
        self._refuse_lossy()
        return np.asarray(self.image.convert("RGB"))

    def palette(self, values: Iterable[int]) -> dict[int, Color]:
        """The colours that a palette mask gives some of its values; empty if it has no palette."""
        if self.image.mode != "P":
            return {}
        table = np.zeros((256, 3), np.uint8)
        given = np.array(self.image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
        table[: len(given)] = given
        return {value: (int(table[value, 0]), int(table[value, 1]), int(table[value, 2])) for value in values}

    def _refuse_lossy(self) -> None:
        if self.lossy:
            raise MaskError(
                f"{self.name}: compressed as {self.lossy}, which changes labels along every edge; export the mask "
                "again as PNG where it was drawn"
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
        return is_file(self.path)

    def boxes(self) -> tuple[str, ...]:
        """The objects of which only a box is known: its pixels are ignored."""
        return ()

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
            data = read_file(self.path) if image.format == "WEBP" else b""
            return MaskHeader((image.height, image.width), image.mode, lossy_codec(image, data))

    def decode(self) -> DecodedMask:
        return decode_mask(read_file(self.path), str(self))


def decode_mask(data: bytes, name: str) -> DecodedMask:
    """Decode the bytes of an image file as a mask.

    Args:
        data: a complete file.
        name: for messages.

    Raises:
        Whatever its decoder raises; :meth:`MaskRef.open` turns the same into a message.
    """
    with open_with_pillow(data) as image:
        lossy, levels = lossy_codec(image, data), grey_levels(image)
        image.load()
        return DecodedMask(name, image, lossy, levels)


def read_mask(ref: MaskRef, form: MaskForm) -> Mask:
    """Read a mask as labels: uint8 ``(H, W)``, values below ``len(form.label_set)`` or 255.

    Args:
        ref: where it is kept.
        form: how it is written; a value or colour that has no meaning in it is an error.

    Raises:
        MaskError: missing, unreadable, lossy, written in another form, values outside the classes, or a palette in
            another order than the classes.
    """
    mask = ref.open()
    return _from_colors(mask, form) if form.encoding == "rgb" else _from_values(mask, form)


def _from_values(mask: DecodedMask, form: MaskForm) -> Mask:
    values = mask.values(form)
    table, unknown = form.tables
    if palette := _suspicious_palette(mask, values, form):
        _refuse_sorted(mask.name, palette, form)
    if cv2.LUT(values, unknown).any():  # OpenCV's look-up is ten times quicker than indexing
        shown = ", ".join(str(value) for value in np.unique(values) if unknown[value])
        raise MaskError(
            f"{mask.name}: value(s) {shown} belong to no class; expected {_in_ranges(form.values_on_disk())}. "
            f"Correct the mask; in a folder dataset, labels.toml can name more classes, or declare ignore = [{shown}]"
        )
    return np.asarray(cv2.LUT(values, table), np.uint8)


def resorted(palette: Mapping[int, Color], form: MaskForm) -> MaskForm | None:
    """How to read a palette mask by its colours, if its palette is not in the order of the classes.

    GIF, and programs that make PNGs smaller, number the colours of each file anew: classes 0, 2 and 5 become values 0,
    1 and 2, and their colours stay. That is certain if every colour is that of a class (or its value as a grey), and
    some value is not that of its colour's class.

    Args:
        palette: the colour of each value that occurs in the mask.
        form: how index masks of the dataset are written.
    """
    if form.encoding == "rgb" or len(set(palette.values())) < len(palette):
        return None
    known = form.known_colors and len(set(form.label_set.colors)) == len(form.label_set)
    if known and (moved := _moved(palette, form, form.by_color())):
        return form.by_color()
    moved = _moved(palette, form, form.by_grey())
    return form.by_grey() if any(label != IGNORE for label in moved.values()) else None  # white is the usual class 1


def _moved(palette: Mapping[int, Color], form: MaskForm, colors: MaskForm) -> dict[int, int]:
    """The values whose colour is that of another label, which is given; empty if not all colours are known."""
    labels, meanings = colors.colors_on_disk(), form.values_on_disk()
    if not all(color in labels for color in palette.values()):
        return {}
    pairs = ((value, labels[color]) for value, color in palette.items() if value != IGNORE)
    return {value: label for value, label in pairs if label != meanings.get(value)}


def _suspicious_palette(mask: DecodedMask, values: Mask, form: MaskForm) -> dict[int, Color]:
    """The palette of the values that occur, unless its order is that of the label set."""
    if mask.image.mode != "P":
        return {}
    table = mask.palette(range(256))
    usual = form.label_set.palette()
    meanings = form.values_on_disk()
    if all(table[value] == tuple(usual[label]) for value, label in meanings.items() if value != IGNORE):
        return {}
    counts = np.bincount(values.reshape(-1), minlength=256)
    return {value: table[value] for value in np.flatnonzero(counts).tolist()}


def _refuse_sorted(name: str, palette: Mapping[int, Color], form: MaskForm) -> None:
    if colors := resorted(palette, form):
        raise MaskError(
            f'{name}: {describe_sorted(palette, form, colors)}; declare encoding = "rgb" and colors = [...] in '
            "labels.toml, or let `atrous data check SPEC --fix NEW_FOLDER` write class numbers"
        )


def describe_sorted(palette: Mapping[int, Color], form: MaskForm, colors: MaskForm) -> str:
    """What shows that a palette is not in the order of the classes, as :func:`resorted` found."""
    value, label = next(iter(_moved(palette, form, colors).items()))
    whose = "ignored pixels" if label == IGNORE else f"class {label} ({form.label_set.names[label]})"
    return f"its palette gives value {value} the colour of {whose}: the order of its colours is not that of the classes"


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
