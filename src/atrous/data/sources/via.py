"""VIA, the VGG Image Annotator, version 2: a project or an export of its annotations as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.shapes import Ellipse, Geometry, Polygon, Scene, Shape
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource, ImageFinder
from atrous.data.sources.base import Listed
from atrous.data.sources.names import only_json
from atrous.errors import DatasetError, InputError

FORM = "a project of VIA 2, or its annotations as JSON: filename and regions (shape_attributes, region_attributes)"
_AREALESS = ("polyline", "point")
_CLASS_KEYS = ("class", "label", "name", "type")
Json = Mapping[str, Any]


def read_project(file: Path) -> dict[str, Scene]:
    """The shapes of each image, by file name; VIA does not record sizes.

    Raises:
        InputError: not in VIA's form.
    """
    with form_of(FORM):
        data = read_json(file)
        images = list(data.get("_via_img_metadata", data).values())
        regions = [(image["filename"], list(_regions(image))) for image in images]
        key = _class_key([region["region_attributes"] for _, listed in regions for region in listed])
        scenes: dict[str, Scene] = {}
        for name, listed in regions:
            if name in scenes:
                raise InputError(f"two images are called {name}")
            scenes[name] = _scene(listed, key)
        return scenes


def _regions(image: Json) -> Sequence[Json]:
    regions = image["regions"]
    return list(regions.values()) if isinstance(regions, dict) else regions  # as version 1 writes them


def _class_key(attributes: Sequence[Json]) -> str:
    """The attribute that has the class: the only one, or the one called so."""
    keys = sorted({key for each in attributes for key in each})
    named = [key for key in _CLASS_KEYS if key in keys] if len(keys) > 1 else keys
    if attributes and len(named) != 1:
        raise InputError(
            f"its regions have the attributes {', '.join(keys) or 'none'}, of which one must be the class: call it "
            "'class'"
        )
    return named[0] if named else ""


def _scene(regions: Sequence[Json], key: str) -> Scene:
    shapes, refused = [], []
    for place, region in enumerate(regions, 1):
        name, shape, called = (
            _name(region["region_attributes"].get(key), place),
            region["shape_attributes"],
            f"region {place}",
        )
        if shape["name"] in _AREALESS:
            refused.append(f"{called} ('{name}', a {shape['name']})")
        else:
            shapes.append(Shape(name, _geometry(shape), 0, called))
    return Scene(0, 0, tuple(shapes), tuple(refused))


def _name(value: Any, place: int) -> str:
    chosen = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]  # of checkboxes
    if len(chosen) != 1 or not isinstance(chosen[0], str) or not chosen[0]:
        raise InputError(f"region {place} has the class {value!r}, expected one name")
    return chosen[0]


def _geometry(shape: Json) -> Geometry:
    kind = shape["name"]
    if kind == "polygon":
        corners = np.array([shape["all_points_x"], shape["all_points_y"]], np.float64).T
        if len(corners) < 3:
            raise InputError(f"a polygon of {len(corners)} points")
        return Polygon((corners,))
    if kind == "rect":
        x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
        return Polygon((np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)]),))
    if kind in ("circle", "ellipse"):
        radius_x, radius_y = (float(shape["r"]),) * 2 if kind == "circle" else (float(shape["rx"]), float(shape["ry"]))
        return Ellipse(
            float(shape["cx"]), float(shape["cy"]), radius_x, radius_y, float(np.rad2deg(shape.get("theta", 0)))
        )
    raise InputError(f"a region '{kind}', which is not known; expected polygon, rect, circle or ellipse")


def read_scene(file: Path, image: str) -> Scene:
    """The shapes of an image of a project.

    Raises:
        InputError: the file can't be read.
    """
    return parsed(file, read_project)[image]


class Via(AnnotatedSource):
    """VIA: one JSON in the folder, and the images in it or below it.

    The class is the only attribute of the regions, or the one called ``class``, ``label``, ``name`` or ``type``; names
    are in alphabetical order. Regions lie over one another as they follow in the file.
    """

    kind = "via"
    default_overlap = "last"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene

    @cached_property
    def file(self) -> Path:
        """The project."""
        return only_json(self.root, self.kind, FORM)

    def class_names(self) -> Sequence[str]:
        return sorted({shape.name for scene in parsed(self.file, read_project).values() for shape in scene.shapes})

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        finder = ImageFinder(self.folder)
        pairs = []
        for name in parsed(self.file, read_project):
            try:
                image = finder.find(name)
            except InputError as error:
                raise DatasetError(f"{self.file}: {error}") from error
            pairs.append(self.pair(Path(name).with_suffix("").as_posix(), image, self.file, name))
        return {UNNAMED: pairs}
