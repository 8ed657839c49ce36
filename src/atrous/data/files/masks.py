"""Masks: where one is kept (:class:`MaskRef`), and reading it as labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.codecs import grey_levels, lossy_codec
from atrous.data.files.find import is_file
from atrous.data.files.limits import read_arrays, read_file
from atrous.data.files.mask_form import MaskForm, look_up
from atrous.data.files.palettes import describe_sorted, resorted
from atrous.data.files.pillow import open_with_pillow
from atrous.errors import InputError
from atrous.labels import IGNORE, WIDE_IGNORE, Color, Mask, ignore_of, labels_from_colors


class MaskError(InputError):
    """A mask that can't be read as labels; the message names the file, what was found and how to fix it."""


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
        """The values of an index mask, uint8 ``(H, W)``; uint16 where a form of more than 255 classes has such.

        Grey values of fewer bits than 8 are read as they are in the file, 0, 1, 2, …; if only the values that they are
        shown as have a meaning in the form (0 and 255 of 1 bit), these are given.

        Args:
            form: how it is written, where known.

        Raises:
            MaskError: lossy, a coloured image, or values that do not fit.
        """
        self._refuse_lossy()
        values, mode = np.asarray(self.image), self.image.mode
        if form is not None and form.encoding == "objects":
            return self._classes_of_objects(form)
        if values.ndim != 2:
            colors = self.colors()
            remedy = (
                'if its colours are the classes, declare encoding = "rgb" and colors = [...] in labels.toml; if they '
                'number objects, encoding = "objects"'
            )
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
        wide = form is not None and form.label_set.ignore > IGNORE
        for dtype in (np.uint8, np.uint16)[: 1 + wide]:
            if low >= 0 and high <= np.iinfo(dtype).max and (values == values.astype(dtype)).all():
                return values.astype(dtype)
        white = form is not None and IGNORE in form.values  # declared as a class
        if white and np.isin(values, (0, 65535)).all():  # black and white of 16 bits
            return (values > 0).astype(np.uint8) * 255
        raise MaskError(
            f"{self.name}: an image of mode {mode} with values from {low} to {high}, expected integers, classes or "
            f"{IGNORE}; save it again as an 8-bit PNG of class numbers, void as {IGNORE}. If there are more than "
            f"{IGNORE} classes, name them all in labels.toml; void is then {WIDE_IGNORE}. If they number objects, as "
            "Cityscapes' instanceIds do (class × 1000 + object), use the masks of classes (labelIds), or declare "
            'encoding = "objects" in labels.toml, and divisor = 1000 if they are class × 1000 + object'
        )

    def _classes_of_objects(self, form: MaskForm) -> Mask:
        """The class of each pixel of a mask that numbers objects, by its values or its colours."""
        objects = np.asarray(self.image)
        if objects.ndim == 3:
            if form.divisor:
                raise MaskError(
                    f"{self.name}: colours, of which a divisor gives no classes; leave it out of labels.toml"
                )
            objects = self.colors().astype(np.int64) @ np.array([65536, 256, 1])
        if objects.size and (objects.min() < 0 or (objects != np.rint(objects)).any()):
            raise MaskError(f"{self.name}: negative or broken values, expected numbers of objects, 0 for none")
        objects = objects.astype(np.int64)  # a divisor may be more than 8 or 16 bits hold
        if form.divisor:
            classes = np.where(objects < form.divisor, objects, objects // form.divisor)
            if classes.size and classes.max() > form.label_set.ignore:
                raise MaskError(
                    f"{self.name}: the value {objects.max()} by the divisor {form.divisor} is class {classes.max()}, "
                    f"expected at most {form.label_set.ignore}; correct divisor in labels.toml"
                )
            return np.asarray(classes, form.label_set.dtype)
        labels: Mask = (objects != 0).astype(np.uint8)
        labels[np.isin(objects, [value for value in form.ignore if isinstance(value, int)])] = ignore_of(labels)
        return labels

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
    """A mask in an image file, a PNG or another lossless format, or an array (``.npy``) ``(H, W)`` or ``(H, W, 1)``."""

    def header(self) -> MaskHeader:
        if self.path.suffix.lower() == ".npy":
            image = _array_image(self.path)
            return MaskHeader((image.height, image.width), image.mode)
        with open_with_pillow(self.path) as image:
            data = read_file(self.path) if image.format == "WEBP" else b""
            return MaskHeader((image.height, image.width), image.mode, lossy_codec(image, data))

    def decode(self) -> DecodedMask:
        if self.path.suffix.lower() == ".npy":
            return DecodedMask(str(self), _array_image(self.path))
        return decode_mask(read_file(self.path), str(self))


def _array_image(path: Path) -> Image.Image:
    values = next(iter(read_arrays(path).values()))
    plane = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if plane.ndim != 2 or plane.dtype.kind not in "uib" or not plane.size:
        raise InputError(f"an array {values.shape} of {values.dtype}, expected whole numbers (H, W)")
    return Image.fromarray(
        plane.astype(np.uint8 if plane.dtype.itemsize == 1 and plane.dtype.kind != "i" else np.int32)
    )


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
    """Read a mask as labels ``(H, W)``: uint8, values below ``len(form.label_set)`` or 255; for more than 255 classes
    uint16, or 65535.

    Args:
        ref: where it is kept.
        form: how it is written; a value or colour that has no meaning in it is an error.

    Raises:
        MaskError: missing, unreadable, lossy, written in another form, values outside the classes, or a palette in
            another order than the classes.
    """
    return labels_of(ref.open(), form)


def labels_of(mask: DecodedMask, form: MaskForm) -> Mask:
    """The labels of a decoded mask, or of a part of one: uint8 ``(H, W)``.

    Raises:
        MaskError: as :func:`read_mask`.
    """
    return _from_colors(mask, form) if form.encoding == "rgb" else _from_values(mask, form)


def _from_values(mask: DecodedMask, form: MaskForm) -> Mask:
    values = mask.values(form)
    table, unknown = form.tables
    if palette := _suspicious_palette(mask, values, form):
        _refuse_sorted(mask.name, palette, form)
    if look_up(values, unknown).any():
        shown = ", ".join(str(value) for value in np.unique(values) if unknown[value])
        raise MaskError(
            f"{mask.name}: value(s) {shown} belong to no class; expected {_in_ranges(form.values_on_disk())}. "
            f"Correct the mask; in a folder dataset, labels.toml can name more classes, or declare ignore = [{shown}]"
        )
    labels: Mask = look_up(values, table)
    return labels


def _suspicious_palette(mask: DecodedMask, values: Mask, form: MaskForm) -> dict[int, Color]:
    """The palette of the values that occur, unless its order is that of the label set."""
    if mask.image.mode != "P" or form.encoding == "objects" or form.label_set.ignore > IGNORE:
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
