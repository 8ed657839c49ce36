"""COCO's annotations: outlines and runs of pixels in one JSON file, drawn as masks when they are read.

A mask has no file of its own. It is named by a path below the JSON: ``instances_val2017.json/coco/000000000139.png``.
"""

from __future__ import annotations

import functools
import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import DatasetError, InputError
from atrous.label_sets import VOC, VOC_IN_COCO
from atrous.labels import IGNORE, LabelSet, Mask

_PART = np.dtype(
    [
        *(("image", np.int32), ("area", np.float32), ("crowd", np.bool_), ("category", np.uint8)),
        *(("first", np.bool_), ("runs", np.bool_), ("start", np.int64), ("stop", np.int64)),
    ]
)
"""An outline, or the runs, of an object: its image, area and category; whether it is the object's first; where its
numbers are.
"""


class CocoImage(NamedTuple):
    """An image by the name of its file and its size; ``row`` is its place in the arrays."""

    row: int
    file: str
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Annotations:
    """A file of annotations, packed in a few arrays, which worker processes share: JSON's own objects fill gigabytes.

    Args:
        categories: their names, by id; the first is category 1.
        images: by the names of their files without ending.
        parts: outlines and runs of the objects, by image, in the order in which they are drawn.
        begins: the first part of each image, and behind the last the number of parts.
        points: x and y of the outlines, in pixels; the middle of the first pixel is (0.5, 0.5).
        runs: how many pixels, down the columns, are outside, inside, outside, … the object.
    """

    categories: tuple[str, ...]
    images: Mapping[str, CocoImage]
    parts: NDArray[np.void]
    begins: NDArray[np.int64]
    points: NDArray[np.float32]
    runs: NDArray[np.int32]

    def label_set(self, kind: str) -> LabelSet:
        """The classes: all categories behind a background (``coco``), or VOC's (``coco-voc``)."""
        return VOC if kind == "coco-voc" else LabelSet((VOC.names[0], *self.categories))

    def classes(self, kind: str) -> NDArray[np.uint8]:
        """The class of each category ``(C + 1,)``; 0 if it is not drawn.

        Raises:
            ValueError: a class of VOC that no category shows.
        """
        if kind != "coco-voc":
            return np.arange(len(self.categories) + 1, dtype=np.uint8)
        classes = np.zeros(len(self.categories) + 1, np.uint8)
        for label, name in enumerate(VOC.names[1:], 1):
            theirs = VOC_IN_COCO.get(name, name)
            if theirs not in self.categories:
                raise InputError(f"no category '{theirs}'")
            classes[1 + self.categories.index(theirs)] = label
        return classes

    def areas(self, kind: str) -> NDArray[np.float64]:
        """The area of the objects of any class in each image, in pixels; crowds are none."""
        drawn = self.parts[
            (self.classes(kind)[self.parts["category"]] > 0) & self.parts["first"] & ~self.parts["crowd"]
        ]
        return np.bincount(drawn["image"], drawn["area"], len(self.images)).astype(np.float64)

    def draw(self, image: str, kind: str) -> Mask:
        """The mask ``(H, W)`` of an image: crowds as 255, over them the objects, the smaller over the larger."""
        row, _, height, width = self.images[image]
        mask, classes = np.zeros((height, width), np.uint8), self.classes(kind)
        for part in self.parts[self.begins[row] : self.begins[row + 1]]:
            if label := classes[part["category"]]:
                value, numbers = IGNORE if part["crowd"] else int(label), slice(part["start"], part["stop"])
                if part["runs"]:
                    mask[inside_runs(self.runs[numbers], height, width)] = value
                else:
                    fill_outline(mask, self.points[numbers].reshape(-1, 2), value)
        return mask


class Drawing(NamedTuple):
    """A mask that annotations tell: of which image, and of which kind of classes."""

    annotations: Annotations
    image: str
    kind: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        image = self.annotations.images[self.image]
        return image.height, image.width

    def mask(self) -> Mask:
        """The mask itself, ``(H, W)``."""
        return self.annotations.draw(self.image, self.kind)


def annotated(path: Path) -> Drawing | None:
    """What the path of a mask below a JSON file names; None for other paths."""
    file = next((parent for parent in path.parents if parent.suffix == ".json"), None)
    if file is None or not file.is_file():
        return None
    kind, *names = path.relative_to(file).parts
    return Drawing(read_annotations(file), "/".join(names).removesuffix(".png"), kind)


def read_annotations(file: Path) -> Annotations:
    """Read a file of annotations, once a process while it does not change: a second for 50,000 objects.

    Raises:
        DatasetError: it is no JSON, or not in COCO's form.
    """
    status = file.stat()
    return _read((file, status.st_mtime_ns, status.st_size))


@functools.cache
def _read(version: tuple[Path, int, int]) -> Annotations:
    file = version[0]
    try:
        return _pack(json.loads(file.read_bytes()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DatasetError(
            f"{file}: {said}; expected COCO's instances: images (id, file_name, height, width), categories (id, name) "
            "and annotations (image_id, category_id, area, iscrowd, segmentation)"
        ) from error


def _pack(data: Mapping[str, Any]) -> Annotations:
    categories = sorted(data["categories"], key=lambda category: category["id"])
    if len(categories) >= IGNORE:
        raise InputError(f"{len(categories)} categories, where masks hold at most {IGNORE - 1} and a background")
    number = {category["id"]: place for place, category in enumerate(categories, 1)}
    images = {
        image["id"]: CocoImage(row, image["file_name"], image["height"], image["width"])
        for row, image in enumerate(data["images"])
    }
    points, runs, rows = array("f"), array("i"), []
    for thing in data["annotations"]:
        for key, known in (("image_id", images), ("category_id", number)):
            if thing[key] not in known:
                raise InputError(f"annotation {thing.get('id')}: {key} {thing[key]!r} is the id of none")
        row, _, height, width = images[thing["image_id"]]
        shape = thing["segmentation"]
        about = (row, thing["area"], bool(thing.get("iscrowd", 0)), number[thing["category_id"]])
        if isinstance(shape, dict):
            counts = shape["counts"]
            counts = unpack_runs(counts) if isinstance(counts, str) else counts
            if sum(counts) != height * width or min(counts) < 0:
                raise InputError(f"annotation {thing.get('id')}: its runs do not fill {width}×{height} pixels")
            rows.append((*about, True, True, len(runs), len(runs) + len(counts)))
            runs.extend(counts)
            continue
        for place, outline in enumerate(shape):
            if len(outline) % 2:
                raise InputError(f"annotation {thing.get('id')}: an outline of {len(outline)} numbers, x without y")
            rows.append((*about, place == 0, False, len(points), len(points) + len(outline)))
            points.extend(outline)
    parts = np.array(rows, _PART)
    parts = parts[np.lexsort((-parts["area"], ~parts["crowd"], parts["image"]))]
    begins = np.searchsorted(parts["image"], np.arange(len(images) + 1))
    names = tuple(category["name"] for category in categories)
    by_name = {Path(image.file).with_suffix("").as_posix(): image for image in images.values()}
    return Annotations(names, by_name, parts, begins, np.array(points), np.array(runs))


def unpack_runs(packed: str) -> list[int]:
    """Runs as COCO writes them in a text: five bits a character, 32 for more to come, 16 in the last for a negative
    number; from the fourth on each run is told as the difference to the one before the last.
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
    """The pixels ``(H, W)`` of every second run, down the columns, the first being outside."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def fill_outline(mask: Mask, outline: NDArray[np.float32], value: int) -> None:
    """Give a value to the pixels of a mask whose middles lie inside an outline ``(N, 2)`` of x and y, even-odd."""
    height, width = mask.shape
    x, y = outline.T.astype(np.float64) - 0.5  # so that the middles of pixels are integers
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.ceil(np.minimum(y, next_y)).clip(0, height).astype(np.int64)
    count = np.ceil(np.maximum(y, next_y)).clip(0, height).astype(np.int64) - first  # rows that each edge crosses
    if not count.any():
        return
    edge = np.repeat(np.arange(len(x)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    crossing = x[edge] + (row - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
    column = np.ceil(crossing).clip(0, width).astype(np.int64)
    top, left, right = row.min(), column.min(), column.max()
    shape = row.max() - top + 1, right - left + 1
    turns = np.bincount((row - top) * shape[1] + column - left, minlength=shape[0] * shape[1]).reshape(shape)
    inside = np.cumsum(turns, 1)[:, :-1] % 2 == 1
    mask[top : top + shape[0], left:right][inside] = value
