"""YOLO segmentation (Ultralytics): ``data.yaml``, and for each image a text file of polygons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from atrous.data.files.documents import form_of, parsed, read_yaml
from atrous.data.files.find import SUFFIXES, is_file
from atrous.data.files.shapes import Fractions, Overlap, Scene, Shape
from atrous.data.sources.annotated import AnnotatedSource
from atrous.data.sources.base import Listed
from atrous.data.sources.names import read_lines, usual_split, visible
from atrous.errors import DatasetError, InputError

FORM = "a data.yaml of Ultralytics: names (a list, or numbers with names), train and val (folders of images, or lists)"
_OTHER_KEYS = ("names", "nc", "path", "download", "roboflow", "task", "channels", "kpt_shape", "flip_idx")
"""Keys of a data.yaml that do not name images."""


def read_scene(file: Path, image: str) -> Scene:  # noqa: ARG001 - a file has one image
    """The polygons of a label file; without a file, an image has none.

    Raises:
        InputError: a line that is not a polygon.
    """
    if not is_file(file):
        return Scene(0, 0, ())
    shapes, refused = [], []
    for place, line in enumerate(read_lines(file, file.parent), 1):
        number, *values = line.split()
        called = f"line {place}"
        if len(values) == 4:
            refused.append(f"{called} (class {number}, a box)")
            continue
        with form_of("a class number and a polygon x y x y x y …, in fractions of the image's width and height"):
            ring = np.array(values, np.float64)
            if len(values) < 6 or len(values) % 2:
                raise InputError(f"{called} has {len(values)} numbers behind the class")
            if not (np.abs(ring) <= 2).all():
                raise InputError(
                    f"{called} has the coordinate {ring[np.abs(ring).argmax()]:g}, which is in pixels or not finite"
                )
            shapes.append(Shape(str(int(number)), Fractions((ring.reshape(-1, 2),)), 0, called))
    return Scene(0, 0, tuple(shapes), tuple(refused))


def _read_yaml(file: Path) -> dict[str, Any]:
    with form_of(FORM):
        data = read_yaml(file)
        names = data["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {**data, "names": {int(number): str(name) for number, name in pairs}}


class Yolo(AnnotatedSource):
    """YOLO segmentation: ``data.yaml``, ``images/train/NAME.jpg`` and ``labels/train/NAME.txt``; also Roboflow's
    ``train/images`` and ``train/labels``.

    A polygon that goes in and out over one cut, a keyhole, has a hole. An image without a label file has no objects,
    as for Ultralytics. The smaller of two polygons lies over the larger, as for Ultralytics.
    """

    kind = "yolo"
    default_overlap = "area"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene
    optional_files = True

    def __init__(self, root: Path, overlap: Overlap | None = None) -> None:
        super().__init__(root, overlap)
        files = [root] if root.is_file() else [*visible(root.glob("*.yaml")), *visible(root.glob("*.yml"))]
        if len(files) != 1:
            raise DatasetError(
                f"{root} has {len(files)} YAML files, expected one data.yaml, as Ultralytics trains from; in Roboflow: "
                "Export > YOLOv8, of an instance segmentation project"
            )
        self.file = files[0]

    @cached_property
    def _yaml(self) -> dict[str, Any]:
        return parsed(self.file, _read_yaml)

    def class_names(self) -> Sequence[str]:
        names: dict[int, str] = self._yaml["names"]
        return [names[number] for number in sorted(names)]

    def shape_labels(self) -> Mapping[str, int]:
        labels = super().shape_labels()  # files have numbers and no names
        return {str(number): labels[name] for number, name in self._yaml["names"].items()}

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        others = {str(key): value for key, value in self._yaml.items() if key not in _OTHER_KEYS and value}
        given = {usual_split(key): value for key, value in others.items() if isinstance(value, str | list)}
        if not given:
            raise DatasetError(f"{self.file} names no images: expected {FORM}")
        pairs = {}
        for split, places in given.items():
            found = [self._images(str(place)) for place in _listed(places)]
            images = dict.fromkeys(image for each in found if each is not None for image in each)
            if not any(each is None for each in found):
                pairs[split] = [self._pair(image) for image in images]
        if not pairs:
            raise DatasetError(f"{self.file} names the images {given}, and none of these folders and lists exist")
        return pairs

    def _pair(self, image: Path) -> Listed:
        name = image.relative_to(self.folder) if image.is_relative_to(self.folder) else Path(image.name)
        return self.pair(name.with_suffix("").as_posix(), image, _label_file(image))

    def _images(self, place: str) -> list[Path] | None:
        """The images of a folder or a list, where Ultralytics and Roboflow's exports look for it; None if it is not
        there.
        """
        base = self.folder / str(self._yaml.get("path") or "")
        inside = place
        while inside.startswith("../"):  # Roboflow writes ../train/images beside the folder train
            inside = inside[3:]
        tried = [base / place, self.folder / place, base / inside, self.folder / inside]
        for path in tried:
            if path.is_dir():
                return [file for file in visible(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
            if path.is_file():
                return [path.parent / line for line in read_lines(path, self.folder)]
        return None


def _listed(places: object) -> list[object]:
    return places if isinstance(places, list) else [places]


def _label_file(image: Path) -> Path:
    """``labels`` in the place of the last ``images`` of the path, or beside the image."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts) / f"{image.stem}.txt"
