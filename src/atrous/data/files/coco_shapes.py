"""Outlines and runs of pixels as COCO stores them, packed in arrays, and the masks that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.limits import check_pixels
from atrous.labels import IGNORE, Mask

PART = np.dtype(
    [
        ("image", np.int32),
        ("area", np.float32),
        ("crowd", np.bool_),
        ("category", np.uint8),
        ("first", np.bool_),
        ("runs", np.bool_),
        ("start", np.int64),
        ("stop", np.int64),
    ]
)
"""An outline, or the runs, of an object: its image, area and category; whether it is the first of the object;
whether it is runs; the range of its numbers. A box that is known of an object without an outline counts as a crowd.
"""

_AT_ONCE = 2**20
"""Pixels of an outline that are filled at once: each takes 17 bytes."""


class CocoImage(NamedTuple):
    """File name and size of an image; ``row`` is its index in the arrays."""

    row: int
    file: str
    height: int
    width: int


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
    points: NDArray[np.float32]
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

    def draw(self, image: str, classes: Sequence[int]) -> Mask:
        """The mask ``(H, W)`` of an image: crowds as 255, over them the objects, the smaller over the larger.

        Args:
            image: its file name without ending.
            classes: as in :meth:`areas`.
        """
        row, _, height, width = self.images[image]
        check_pixels(height, width)
        mask = np.zeros((height, width), np.uint8)
        for part in self.parts[self.begins[row] : self.begins[row + 1]]:
            if label := classes[part["category"]]:
                value, numbers = IGNORE if part["crowd"] else int(label), slice(part["start"], part["stop"])
                if part["runs"]:
                    mask[inside_runs(self.runs[numbers], height, width)] = value
                else:
                    fill_outline(mask, self.points[numbers].reshape(-1, 2), value)
        return mask


def unpack_runs(packed: str) -> list[int]:
    """Decode runs from COCO's compressed strings: five bits per character, 32 for more to come, 16 in the last for a
    negative number; from the fourth on, each run is stored as the difference to the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for code in packed.encode():
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def inside_runs(runs: Sequence[int] | NDArray[np.int32], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels ``(H, W)`` inside an object, given its runs down the columns: outside, inside, outside, …"""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def fill_outline(mask: Mask, outline: NDArray[np.float32], value: int) -> None:
    """Set the pixels of a mask whose centres lie inside an outline ``(N, 2)`` of x and y, by the even-odd rule."""
    height, width = mask.shape
    x, y = outline.T.astype(np.float64) - 0.5  # so that pixel centres are integers
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.ceil(np.minimum(y, next_y)).clip(0, height).astype(np.int64)
    count = np.ceil(np.maximum(y, next_y)).clip(0, height).astype(np.int64) - first  # rows that each edge crosses
    if not count.any():
        return
    edge = np.repeat(np.arange(len(x)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    crossing = x[edge] + (row - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
    column = np.ceil(crossing).clip(0, width).astype(np.int64)
    left, width = column.min(), column.max() - column.min() + 1
    step = max(1, _AT_ONCE // width)
    for top in range(row.min(), row.max() + 1, step):
        here = (row >= top) & (row < top + step)
        rows = min(step, row.max() + 1 - top)
        turns = np.bincount((row[here] - top) * width + column[here] - left, minlength=rows * width)
        inside = np.cumsum(turns.reshape(rows, width), 1)[:, :-1] % 2 == 1
        mask[top : top + rows, left : left + width - 1][inside] = value
