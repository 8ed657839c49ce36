"""What the writers share: an image with its mask, and the shapes of a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.sources.annotated import BACKGROUND, VOID
from atrous.errors import DatasetError
from atrous.labels import IGNORE, Color, LabelSet, Mask

IGNORED = "ignore"
"""The name of the shapes of ignored pixels, which the sources of annotation tools read as 255."""


class Example(NamedTuple):
    """An image in its new place, with its mask ``(H, W)``.

    Args:
        split: that it is in.
        name: unique in the dataset, without a suffix.
        image: its file.
        mask: the class of each pixel, 255 for ignored ones.
    """

    split: str
    name: str
    image: Path
    mask: Mask


class Classes(NamedTuple):
    """The classes that are written as shapes: name and colour by label, without the background, with 255."""

    names: dict[int, str]
    colors: dict[int, Color]

    @classmethod
    def of(cls, label_set: LabelSet) -> Classes:
        """The classes of a label set: class 0 is left out if it is called background.

        Raises:
            DatasetError: another class has a name that means the background or ignored pixels, or there are more than
                255 classes.
        """
        if label_set.ignore != IGNORE:
            raise DatasetError(
                f"{len(label_set)} classes, where the forms of annotation tools are written for at most {IGNORE}; "
                "write a folder (--to folder), or merge classes with --classes"
            )
        first = int(label_set.names[0].lower() in BACKGROUND)
        names = dict(list(enumerate(label_set.names))[first:])
        if reserved := [name for name in names.values() if name.lower() in BACKGROUND | VOID]:
            raise DatasetError(
                f"the class '{reserved[0]}' can't be written: shapes of this name mean the background or ignored "
                "pixels; rename it with --classes"
            )
        colors = dict(list(enumerate(label_set.colors))[first:])
        return cls({**names, IGNORE: IGNORED}, {**colors, IGNORE: (128, 128, 128)})

    def present(self, mask: Mask) -> list[int]:
        """The labels of a mask that are written as shapes."""
        return [
            label for label in np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist() if label in self.names
        ]


class Part(NamedTuple):
    """Connected pixels of a class, bool ``(h, w)``, from row ``top`` and column ``left`` on."""

    label: int
    top: int
    left: int
    inside: NDArray[np.bool_]


def parts_of(mask: Mask, classes: Classes) -> Iterator[Part]:
    """The connected parts of each class of a mask, by labels; pixels that touch in a corner are connected."""
    for label in classes.present(mask):
        count, numbers, boxes, _ = cv2.connectedComponentsWithStats((mask == label).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            left, top, width, height = (int(side) for side in boxes[number, :4])
            yield Part(label, top, left, numbers[top : top + height, left : left + width] == number)


class Format(NamedTuple):
    """A form in which a dataset can be written.

    Args:
        place: split, name and suffix → where the image lies in the folder.
        write: folder, examples and label set → writes everything but the images.
        source: the name of the source that reads it.
    """

    place: Callable[[str, str, str], str]
    write: Callable[[Path, Iterable[Example], LabelSet], None]
    source: str


def hex_of(color: Color) -> str:
    """A colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)
