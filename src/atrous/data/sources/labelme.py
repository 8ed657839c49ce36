"""labelme (labelmeai/labelme): a JSON file for each image."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.documents import form_of, read_json
from atrous.data.files.embedded import extracted
from atrous.data.files.find import is_file
from atrous.data.files.pillow import open_with_pillow
from atrous.data.files.shapes import Bitmap, Ellipse, Geometry, Overlap, Polygon, Scene, Shape
from atrous.data.files.threads import read_all
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource
from atrous.data.sources.base import DatasetSource, Listed
from atrous.data.sources.labelme_masks import CLASSES, LabelmeMasks
from atrous.data.sources.names import read_lines, usual_split
from atrous.errors import DatasetError, InputError

FORM = (
    "labelme's JSON: shapes (label, points, shape_type), imagePath, imageHeight and imageWidth, as labelme saves it "
    "beside each image"
)
LISTS = ("labels.txt", "class_names.txt")
"""Files in which the classes may be listed in their order, one a line, as for labelme's own export."""
_AREALESS = ("line", "linestrip", "point", "points")


def read_scene(file: Path, image: str) -> Scene:  # noqa: ARG001 - a file has one image
    """The shapes of a file.

    Raises:
        InputError: not in labelme's form.
    """
    with form_of(FORM):
        data = read_json(file)
        shapes = list(enumerate(data["shapes"], 1))
        areas = [(place, shape) for place, shape in shapes if _kind(shape) not in _AREALESS]
        refused = [f"shape {place} ('{shape['label']}', a {_kind(shape)})" for place, shape in shapes]
        refused = [text for (_, shape), text in zip(shapes, refused, strict=True) if _kind(shape) in _AREALESS]
        height, width = data.get("imageHeight") or 0, data.get("imageWidth") or 0
        drawn = tuple(Shape(shape["label"], _geometry(shape, place), 0, f"shape {place}") for place, shape in areas)
        return Scene(int(height), int(width), drawn, tuple(refused))


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # which early versions do not write


def _geometry(shape: Mapping[str, Any], place: int) -> Geometry:
    kind, points = _kind(shape), np.array(shape["points"], np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise InputError(f"shape {place} has points that are not finite")
    if kind == "polygon":
        if len(points) < 3:
            raise InputError(f"shape {place} ('{shape['label']}') is a polygon of {len(points)} points")
        return Polygon((points,), "pillow")
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = float(np.hypot(*(edge - points[0])))
        return Ellipse(x + 0.5, y + 0.5, radius, radius)
    left, top = np.minimum(points[0], points[1])
    if kind == "mask":
        return Bitmap(int(top), int(left), partial(_bitmap, shape["mask"]))
    if kind in ("rectangle", "oriented_rectangle"):
        return Polygon((_corners(points) if len(points) == 2 else points,), "pillow")
    raise InputError(f"shape {place} is of the type '{kind}', which is not known; expected polygon, rectangle or mask")


def _corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
    (x, y), (other_x, other_y) = points
    return np.array([(x, y), (other_x, y), (other_x, other_y), (x, other_y)])


def _bitmap(data: str) -> NDArray[np.bool_]:
    with open_with_pillow(base64.b64decode(data)) as image:
        return np.asarray(image.convert("L")) > 0


class Labelme(AnnotatedSource):
    """labelme: ``NAME.json`` beside ``NAME.jpg``, in the folder or below it.

    Images whose JSON is missing are in no split. Subfolders named ``train``, ``val`` or ``test`` are splits.
    """

    kind = "labelme"
    default_overlap = "last"
    reader: ClassVar = read_scene

    @cached_property
    def files(self) -> list[Path]:
        """The JSON files, in order."""
        found = [self.root] if self.root.is_file() else sorted(self.root.rglob("*.json"))
        files = [file for file in found if not file.name.startswith(".")]
        if not files:
            raise DatasetError(f"{self.root} has no JSON files; labelme saves one beside each image, with File > Save")
        return files

    @cached_property
    def _read(self) -> dict[Path, tuple[tuple[str, ...], str, bool]]:
        """Of each file: the names of its shapes, the path of its image, and whether the image is inside the file."""
        return dict(zip(self.files, read_all(_summary, self.files), strict=True))

    def class_names(self) -> Sequence[str]:
        there = {name for names, _, _ in self._read.values() for name in names}
        lists = [self.folder / name for name in LISTS if is_file(self.folder / name)]
        return [*(read_lines(lists[0], self.folder) if lists else ()), *sorted(there)]

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        pairs: dict[str, list[Listed]] = {}
        for file, (_, path, inside) in self._read.items():
            relative = file.relative_to(self.folder).with_suffix("")
            image = _image(file, path, inside)
            split = usual_split(relative.parts[0]) if len(relative.parts) > 1 else UNNAMED
            split = split if split in ("train", "val", "test") else UNNAMED
            pairs.setdefault(split, []).append(self.pair(relative.as_posix(), image, file))
        return pairs


def _summary(file: Path) -> tuple[tuple[str, ...], str, bool]:
    try:
        with form_of(FORM):
            data = read_json(file)
            names = tuple(dict.fromkeys(str(shape["label"]) for shape in data["shapes"]))
            return names, str(data["imagePath"]).replace("\\", "/"), bool(data.get("imageData"))
    except InputError as error:
        raise DatasetError(f"{file}: {error}") from error


def _image(file: Path, path: str, inside: bool) -> Path:
    """The image that a file names; beside it under its file name, if it was moved; or taken out of the file."""
    for place in (file.parent / path, file.parent / Path(path).name):
        if is_file(place):
            return place
    return extracted(file, Path(path).name, partial(_image_inside, file)) if inside else file.parent / path


def _image_inside(file: Path) -> bytes:
    data = base64.b64decode(read_json(file)["imageData"])
    open_with_pillow(data).close()  # a damaged one fails here, by the name of the file
    return data


def open_labelme(root: Path, overlap: Overlap | None = None) -> DatasetSource:
    """Open the JSON files that labelme saves, or its export in VOC's folders.

    Raises:
        DatasetError: neither is there.
    """
    exported = (root / CLASSES).is_file() and (root / "SegmentationClass").is_dir()
    return LabelmeMasks(root) if exported else Labelme(root, overlap)
