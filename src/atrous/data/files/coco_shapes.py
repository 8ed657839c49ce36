"""Outlines and runs of pixels as COCO stores them, packed in arrays, and the masks that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.limits import check_pixels
from atrous.data.files.rasterise import rasterise
from atrous.data.files.rle import inside_runs
from atrous.data.files.shapes import Overlap
from atrous.labels import IGNORE, Mask

PART = np.dtype(
    [
        ("image", np.int32),
        ("area", np.float32),
        ("crowd", np.bool_),
        ("category", np.uint8),
        ("first", np.bool_),
        ("runs", np.bool_),
        ("number", np.int32),
        ("start", np.int64),
        ("stop", np.int64),
    ]
)
"""An outline, or the runs, of an object: its image, area and category; whether it is the first of the object;
whether it is runs; the place of the object in the file; the range of its numbers. A box that is known of an object
without an outline counts as a crowd.
"""


class CocoImage(NamedTuple):
    """File name and size of an image; ``row`` is its index in the arrays."""

    row: int
    file: str
    height: int
    width: int

    @property
    def is_tiny(self) -> bool:
        """Whether an outline in pixels may well lie within the first of them."""
        return max(self.height, self.width) <= 2


@dataclass(frozen=True, eq=False)
class Annotations:
    """A file of annotations, packed in a few arrays that worker processes share: JSON's own objects fill gigabytes.

    Args:
        categories: their names, by id; the first is category 1.
        images: by their names: the file name without suffix, unless two share it.
        parts: outlines and runs of the objects, by image, in the order in which they are drawn.
        begins: the first part of each image, and behind the last the number of parts.
        points: x and y of the outlines, in pixels; the centre of the first pixel is (0.5, 0.5).
        runs: how many pixels, down the columns, are outside, inside, outside, … the object.
        boxes: the objects of which only a box is known, by the name of their image.
    """

    categories: tuple[str, ...]
    images: Mapping[str, CocoImage]
    parts: NDArray[np.void]
    begins: NDArray[np.int64]
    points: NDArray[np.float64]
    runs: NDArray[np.int32]
    boxes: Mapping[str, tuple[str, ...]]

    def areas(self, classes: Sequence[int]) -> NDArray[np.float64]:
        """The area ``(images,)`` of the objects of any class in each image, in pixels, crowds not counted.

        Args:
            classes: the class of each category, from category 0 on; 0 for those that are not drawn.
        """
        objects = (np.array(classes)[self.parts["category"]] > 0) & self.parts["first"] & ~self.parts["crowd"]
        drawn = self.parts[objects]
        return np.bincount(drawn["image"], drawn["area"], len(self.images)).astype(np.float64)

    def draw(self, image: str, classes: Sequence[int], overlap: Overlap = "area") -> Mask:
        """The mask ``(H, W)`` of an image: crowds as 255, and the objects over them.

        Args:
            image: its file name without ending.
            classes: as in :meth:`areas`.
            overlap: ``area``, the smaller over the larger, by their ``area``; else the later in the file over the
                earlier.

        Raises:
            InputError: pycocotools is needed for outlines, and missing.
        """
        row, _, height, width = self.images[image]
        check_pixels(height, width)
        mask = np.zeros((height, width), np.uint8)
        parts = self.parts[self.begins[row] : self.begins[row + 1]]
        if overlap != "area":
            parts = parts[np.lexsort((parts["number"], ~parts["crowd"]))]
        for part in parts:
            if label := classes[part["category"]]:
                value, numbers = IGNORE if part["crowd"] else int(label), slice(part["start"], part["stop"])
                if part["runs"]:
                    mask[inside_runs(self.runs[numbers], height, width)] = value
                else:
                    window = rasterise([self.points[numbers]], height, width, "coco")
                    window.of(mask)[window.inside] = value
        return mask
