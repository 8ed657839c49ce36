"""COCO's annotations: outlines and runs of pixels in one JSON file, drawn as masks when they are read."""

from __future__ import annotations

import functools
import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
from PIL import Image

from atrous.data.files.coco_shapes import PART, Annotations, CocoImage
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef
from atrous.data.files.rasterise import FARTHEST
from atrous.data.files.rle import unpack_runs
from atrous.data.files.shapes import Overlap
from atrous.errors import DatasetError, InputError, kind_of
from atrous.labels import IGNORE

Thing = Mapping[str, Any]
"""An image, a category or an annotation of the file."""


@dataclass(frozen=True)
class CocoMask(MaskRef):
    """The mask of an image in a file of annotations, drawn when it is opened.

    Args:
        path: the JSON file.
        image: the image's file name without ending.
        classes: the class of each category, from category 0 on; 0 for those that are not drawn.
        overlap: which of two objects lies over the other.
    """

    image: str
    classes: tuple[int, ...] = field(repr=False, compare=False)
    overlap: Overlap = "area"
    expected: ClassVar[str] = "annotations"

    def __str__(self) -> str:
        return f"{self.path}, image {self.image}"

    def boxes(self) -> tuple[str, ...]:
        return read_annotations(self.path).boxes.get(self.image, ())

    def header(self) -> MaskHeader:
        image = read_annotations(self.path).images[self.image]
        return MaskHeader((image.height, image.width))

    def decode(self) -> DecodedMask:
        mask = read_annotations(self.path).draw(self.image, self.classes, self.overlap)
        return DecodedMask(str(self), Image.fromarray(mask))


def read_annotations(file: Path) -> Annotations:
    """Read a file of annotations, once a process while it does not change: a second for 50,000 objects.

    Raises:
        DatasetError: it is not JSON, or not in COCO's form.
    """
    status = file.stat()
    return _read((file, status.st_mtime_ns, status.st_size))


@functools.cache
def _read(version: tuple[Path, int, int]) -> Annotations:
    file = version[0]
    try:
        return _pack(json.loads(file.read_bytes()))
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, (AttributeError, TypeError)):
            reason = f"a value of another type than expected ({error})"
        raise DatasetError(
            f"{file}: {reason}; expected COCO's instances: images (id, file_name, height, width), categories (id, "
            "name) and annotations (image_id, category_id, area, iscrowd, segmentation)"
        ) from error


def _pack(data: Any) -> Annotations:
    if not isinstance(data, dict):
        raise InputError(f"{kind_of(data)} of {len(data) if hasattr(data, '__len__') else 1}, not an object")
    categories = sorted(data["categories"], key=lambda category: category["id"])
    _check_categories(categories)
    images = _images(data["images"])
    shapes = _Shapes({category["id"]: place for place, category in enumerate(categories, 1)}, images)
    for thing in data["annotations"]:
        shapes.add(thing)
    by_name = _by_name(images.values())
    return shapes.packed(tuple(category["name"] for category in categories), by_name)


def _check_categories(categories: Sequence[Thing]) -> None:
    if not categories:
        raise InputError("there are no categories, so there is nothing to learn")
    if unnamed := [category["name"] for category in categories if not isinstance(category["name"], str)]:
        raise InputError(f"the name of a category is {unnamed[0]!r}, expected a string")
    if len(categories) >= IGNORE:
        raise InputError(f"{len(categories)} categories, where masks have at most {IGNORE - 1} and a background")
    for key in ("id", "name"):
        for value, count in Counter(category[key] for category in categories).items():
            if count > 1:
                raise InputError(f"{count} categories have the {key} {value!r}; give each its own")


def _images(listed: Sequence[Thing]) -> dict[Any, CocoImage]:
    """The images by their ids; two entries of one file are one image."""
    images: dict[Any, CocoImage] = {}
    by_file: dict[str, CocoImage] = {}
    for entry in listed:
        key, file, size = entry["id"], entry["file_name"], (entry["height"], entry["width"])
        if not isinstance(file, str) or not file:
            raise InputError(f"image {key!r} has the file_name {file!r}, expected the name of a file")
        if not all(isinstance(side, (int, float)) and side >= 1 and side == int(side) for side in size):
            raise InputError(f"image {key!r} ({file}) has height {size[0]} and width {size[1]}, expected whole numbers")
        image = by_file.setdefault(file, CocoImage(len(by_file), file, int(size[0]), int(size[1])))
        if (image.height, image.width) != size:
            raise InputError(f"{file} is listed twice, with other sizes; take one of the entries out")
        if key in images:
            raise InputError(f"images {images[key].file} and {file} have the same id {key!r}; give each its own")
        images[key] = image
    return images


def _by_name(images: Any) -> dict[str, CocoImage]:
    """Images by their file names without suffix; if two share that, with it (``a_png``)."""
    once = {image.row: image for image in images}.values()
    stems = Counter(_stem(image) for image in once)
    named: dict[str, CocoImage] = {}
    for image in once:
        name = _stem(image)
        if stems[name] > 1:
            name = f"{name}_{Path(image.file).suffix[1:]}"
        while name in named or (stems[_stem(image)] > 1 and name in stems):
            name += "_"
        named[name] = image
    return named


def _stem(image: CocoImage) -> str:
    return Path(image.file).with_suffix("").as_posix()


class _Shapes:
    """Collects outlines and runs.

    Args:
        categories: the number of each category, by its id.
        images: by their ids.
    """

    def __init__(self, categories: Mapping[Any, int], images: Mapping[Any, CocoImage]) -> None:
        self.categories, self.images = categories, images
        self.points, self.runs = array("d"), array("i")
        self.rows: list[tuple[Any, ...]] = []
        self.boxes: dict[int, list[str]] = {}
        self.outlines = self.fractions = self.number = 0

    def add(self, thing: Thing) -> None:
        """Add an annotation.

        Raises:
            InputError: it refers to something that does not exist, or its shape can't be drawn.
        """
        for key, known in (("image", self.images), ("category", self.categories)):
            if (value := thing[f"{key}_id"]) not in known:
                raise InputError(f"annotation {thing.get('id')}: {key}_id {value!r} does not refer to any {key}")
        try:
            self._add_shape(thing, thing.get("segmentation"))
        except (KeyError, TypeError, OverflowError) as error:
            raise InputError(
                f"annotation {thing.get('id')}: its segmentation can't be read ({error}), expected outlines [[x, y, "
                "x, y, …], …] or runs of pixels {size, counts}"
            ) from error

    def _add_shape(self, thing: Thing, shape: Any) -> None:
        if isinstance(shape, dict):
            self._add_runs(thing, shape["counts"])
            return
        outlines = [shape] if shape and isinstance(shape[0], (int, float)) else shape or []
        for outline in outlines:
            if len(outline) % 2:
                raise InputError(f"annotation {thing.get('id')}: an outline of {len(outline)} numbers, x without y")
        outlines = [outline for outline in outlines if len(outline) >= 6]
        if outlines:
            self._add_outlines(thing, outlines)
        else:
            self._add_box(thing)

    def _add_runs(self, thing: Thing, counts: Any) -> None:
        _, _, height, width = self.images[thing["image_id"]]
        counts = unpack_runs(counts) if isinstance(counts, str) else counts
        if not counts or sum(counts) != height * width or min(counts) < 0:
            raise InputError(f"annotation {thing.get('id')}: its runs do not fill {width}×{height} pixels")
        begin = len(self.runs)
        self.runs.extend(counts)
        self._row(thing, sum(counts[1::2]), True, True, begin, len(self.runs))

    def _add_outlines(self, thing: Thing, outlines: Sequence[Sequence[float]], *, box: bool = False) -> None:
        area = sum(map(_area, outlines)) if thing.get("area") is None else 0
        for place, outline in enumerate(outlines):
            begin = len(self.points)
            self.points.extend(outline)
            self._row(thing, area, place == 0, False, begin, len(self.points), box=box)
        self.outlines += 1
        self.fractions += all(map(_is_in_fractions, outlines)) and not self.images[thing["image_id"]].is_tiny

    def _add_box(self, thing: Thing) -> None:
        box = thing.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise InputError(f"annotation {thing.get('id')} has neither an outline nor a bbox [x, y, width, height]")
        left, top, width, height = box
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        self._add_outlines(thing, [corners], box=True)
        self.boxes.setdefault(self.images[thing["image_id"]].row, []).append(f"annotation {thing.get('id')}")

    def _row(
        self, thing: Thing, area: float, first: bool, runs: bool, begin: int, end: int, *, box: bool = False
    ) -> None:
        given = thing.get("area")
        crowd = box or bool(thing.get("iscrowd", 0))
        image = self.images[thing["image_id"]].row
        number = self.categories[thing["category_id"]]
        self.number += first
        drawn = area if given is None else given
        self.rows.append((image, drawn, crowd, number, first, runs, self.number, begin, end))

    def packed(self, names: tuple[str, ...], images: Mapping[str, CocoImage]) -> Annotations:
        """All annotations.

        Raises:
            InputError: outlines in units of the image's size, or with numbers that are not finite.
        """
        if 2 * self.fractions > self.outlines:
            self._refuse_fractions()
        points, parts = np.array(self.points), np.array(self.rows, PART)
        if not (np.abs(points) <= FARTHEST).all():
            raise InputError(f"an outline has a number that is not finite, or beyond {FARTHEST:,} pixels")
        parts = parts[np.lexsort((-parts["area"], ~parts["crowd"], parts["image"]))]
        begins = np.searchsorted(parts["image"], np.arange(len(images) + 1))
        called = {image.row: name for name, image in images.items()}
        boxes = {called[row]: tuple(things) for row, things in self.boxes.items()}
        return Annotations(names, images, parts, begins, points, np.array(self.runs), boxes)

    def _refuse_fractions(self) -> NoReturn:
        raise InputError(
            f"{self.fractions} of {self.outlines} outlines lie between 0 and 1: they are fractions of the image's "
            "width and height, expected pixels; multiply x by the width and y by the height"
        )


def _is_in_fractions(outline: Sequence[float]) -> bool:
    """Whether an outline lies between 0 and 1, and not on the corners of the first pixel, which is an object too."""
    return max(outline) <= 1 and any(value % 1 for value in outline)


def _area(outline: Sequence[float]) -> float:
    """The area inside an outline."""
    x, y = np.asarray(outline, np.float64).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
