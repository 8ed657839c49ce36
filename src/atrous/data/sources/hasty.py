"""Hasty (CloudFactory): its JSON export of version 1.1, with polygons and masks as runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.shapes import Geometry, Overlap, Polygon, RowRuns, Scene, Shape
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource, ImageFinder, hex_color
from atrous.data.sources.base import DatasetSource, Listed
from atrous.data.sources.hasty_masks import CLASSES, HastyMasks
from atrous.data.sources.names import only_json
from atrous.errors import DatasetError, InputError
from atrous.labels import Color

FORM = "Hasty's JSON export of version 1.1: label_classes (class_name) and images (image_name, width, height, labels)"
Json = Mapping[str, Any]


class Exported(NamedTuple):
    """The colours of the classes by name, and of each image, by dataset and name, its shapes."""

    colors: Mapping[str, str]
    scenes: Mapping[str, Scene]


def read_export(file: Path) -> Exported:
    """Read an export.

    Raises:
        InputError: not in Hasty's form.
    """
    with form_of(FORM):
        data = read_json(file)
        if str(data.get("export_format_version")) != "1.1":
            raise InputError(f"its export_format_version is {data.get('export_format_version')!r}")
        scenes: dict[str, Scene] = {}
        for image in data["images"]:
            key = "/".join(filter(None, (image.get("dataset_name"), image["image_name"])))
            if key in scenes:
                raise InputError(f"two images are called {key}")
            scenes[key] = _scene(image)
        return Exported({thing["class_name"]: thing.get("color") or "" for thing in data["label_classes"]}, scenes)


def _scene(image: Json) -> Scene:
    shapes, refused = [], []
    for place, label in enumerate(image["labels"], 1):
        name, called = label["class_name"], f"label {place}"
        if not label.get("mask") and not label.get("polygon"):
            refused.append(f"{called} ('{name}', a box)")
        else:
            shapes.append(Shape(name, _geometry(label), float(label.get("z_index") or 0), called))
    return Scene(int(image["height"]), int(image["width"]), tuple(shapes), tuple(refused))


def _geometry(label: Json) -> Geometry:
    if not label.get("mask"):
        return Polygon((np.array(label["polygon"], np.float64).reshape(-1, 2),))
    left, top, right, bottom = (int(side) for side in label["bbox"])
    return RowRuns(top, left, bottom - top, right - left, [int(run) for run in label["mask"]])


def read_scene(file: Path, image: str) -> Scene:
    """The shapes of an image of an export.

    Raises:
        InputError: the file can't be read.
    """
    return parsed(file, read_export).scenes[image]


class Hasty(AnnotatedSource):
    """Hasty's JSON export in the folder, and the images in it or below it, also in a folder per dataset.

    Labels lie over one another by their ``z_index``.
    """

    kind = "hasty"
    default_overlap = "order"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene

    @cached_property
    def file(self) -> Path:
        """The export."""
        return only_json(self.root, self.kind, FORM)

    def class_names(self) -> Sequence[str]:
        return list(parsed(self.file, read_export).colors)

    def class_colors(self) -> Mapping[str, Color]:
        colors = parsed(self.file, read_export).colors
        return {name: hex_color(color[:7]) for name, color in colors.items() if color}

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        finder = ImageFinder(self.folder)
        pairs = []
        for key in parsed(self.file, read_export).scenes:
            try:
                image = finder.find(key)
            except InputError as error:
                raise DatasetError(f"{self.file}: {error}") from error
            pairs.append(self.pair(Path(key).with_suffix("").as_posix(), image, self.file, key))
        return {UNNAMED: pairs}


def open_hasty(root: Path, overlap: Overlap | None = None) -> DatasetSource:
    """Open either of Hasty's exports.

    Raises:
        DatasetError: neither is there.
    """
    return HastyMasks(root) if (root / CLASSES).is_file() else Hasty(root, overlap)
