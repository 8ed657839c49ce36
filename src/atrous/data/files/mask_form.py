"""How the masks of a dataset are written: which values or colours mean which class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.labels import VOID_COLOR, Color, LabelSet, Mask

Encoding = Literal["index", "rgb", "objects"]
Orientation = Literal["upright", "stored"]


@dataclass(frozen=True)
class MaskForm:
    """How the masks of a dataset are written.

    Args:
        label_set: the classes.
        encoding: ``index`` (palette and grey images: the value is the class), ``rgb`` (the colour is the class, by
            the label set's colours; VOC's cream is void), or ``objects`` (values or colours number objects).
        values: the value on disk of each class; 0, 1, 2, … when left out.
        ignore: values on disk, or colours of RGB masks, of ignored pixels. 255 is one unless it is a class (65535 for
            more than 255 classes).
        orientation: for images that EXIF turns, whether masks were drawn on the image as it is shown (``upright``) or
            on its pixels as they are stored (``stored``); None if only sizes can tell.
        divisor: of masks of objects: a value from it on is class × divisor + object, a smaller one a class; 0 if every
            value but 0, and every colour but black, is an object of class 1, and ``ignore`` has such values.
        known_colors: whether palette masks have the label set's colours, so that a palette in another order shows.
    """

    label_set: LabelSet
    encoding: Encoding = "index"
    values: tuple[int, ...] = ()
    ignore: tuple[int | Color, ...] = ()
    orientation: Orientation | None = None
    divisor: int = 0
    known_colors: bool = False

    def values_on_disk(self) -> dict[int, int]:
        """What each value of an index mask means, or each class of a mask of objects: a class, or what is ignored."""
        ignore = self.label_set.ignore
        meanings = {ignore: ignore}
        meanings |= {value: label for label, value in enumerate(self.values or range(len(self.label_set)))}
        if self.encoding == "objects" and not self.divisor:
            return meanings
        return meanings | {value: ignore for value in self.ignore if isinstance(value, int)}

    @cached_property
    def tables(self) -> tuple[Mask, NDArray[np.uint8]]:
        """For each value of an index mask, 256 or 65,536, its label, and 1 if it has no meaning, else 0."""
        count, dtype = self.label_set.ignore + 1, self.label_set.dtype
        table: Mask = np.arange(count).astype(dtype)
        unknown = np.ones(count, np.uint8)
        for value, label in self.values_on_disk().items():
            table[value], unknown[value] = label, 0
        return table, unknown

    def colors_on_disk(self) -> dict[Color, int]:
        """What each colour of an RGB mask means: a class, or what is ignored."""
        ignore = self.label_set.ignore
        meanings = {VOID_COLOR: ignore} | {color: label for label, color in enumerate(self.label_set.colors)}
        return meanings | {color: ignore for color in self.ignore if isinstance(color, tuple)}

    def by_color(self) -> MaskForm:
        """The same classes, written as the label set's colours."""
        return replace(self, encoding="rgb", values=(), ignore=tuple(c for c in self.ignore if isinstance(c, tuple)))

    def by_grey(self) -> MaskForm:
        """The same classes, written as grey colours of their values."""
        grey = {value: (value, value, value) for value in range(256)}
        greys = tuple(grey[value] for value in self.values or range(len(self.label_set)))
        void = tuple(grey[value] for value, label in self.values_on_disk().items() if label == self.label_set.ignore)
        return replace(self.by_color(), label_set=LabelSet(self.label_set.names, greys), ignore=void)


def look_up(values: Mask, table: NDArray[Any]) -> NDArray[Any]:
    """The entry of a table for each value of a mask, uint8 or uint16; a uint8 mask may have a longer table."""
    if values.dtype == np.uint8 and table.dtype == np.uint8:
        return np.asarray(cv2.LUT(values, table[:256]))  # ten times quicker than indexing
    return np.asarray(table[values])
