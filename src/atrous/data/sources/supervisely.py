"""Supervisely: a project of ``meta.json``, and of each image a JSON of polygons and bitmaps."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.limits import BYTES_PER_PIXEL, decode_limit
from atrous.data.files.pillow import open_with_pillow
from atrous.data.files.shapes import Bitmap, Geometry, Overlap, Polygon, Scene, Shape
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource, hex_color
from atrous.data.sources.base import Listed
from atrous.data.sources.names import usual_split, visible
from atrous.errors import DatasetError, InputError
from atrous.labels import Color

FORM = "an annotation of Supervisely: size (height, width) and objects (classTitle, geometryType, points or bitmap)"
META = "a meta.json of Supervisely: classes, each with a title and a color"
_AREALESS = ("line", "point", "graph", "cuboid", "cuboid_3d")


def read_scene(file: Path, image: str) -> Scene:  # noqa: ARG001 - a file has one image
    """The objects of an annotation.

    Raises:
        InputError: not in Supervisely's form.
    """
    with form_of(FORM):
        data = read_json(file)
        shapes, refused = [], []
        for place, thing in enumerate(data["objects"], 1):
            name, kind = thing["classTitle"], thing["geometryType"]
            if kind in _AREALESS:
                refused.append(f"object {place} ('{name}', a {kind})")
            else:
                shapes.append(Shape(name, _geometry(kind, thing), 0, f"object {place}"))
        height, width = int(data["size"]["height"]), int(data["size"]["width"])
        return Scene(height, width, tuple(shapes), tuple(refused))


def _geometry(kind: str, thing: Mapping[str, Any]) -> Geometry:
    if kind == "bitmap":
        left, top = thing["bitmap"]["origin"]
        return Bitmap(int(top), int(left), partial(_bitmap, thing["bitmap"]["data"]))
    if kind in ("polygon", "rectangle"):
        points = thing["points"]
        rings = [np.array(ring, np.float64).reshape(-1, 2) for ring in (points["exterior"], *points["interior"])]
        if kind == "rectangle":
            (x, y), (other_x, other_y) = rings[0]
            rings[0] = np.array([(x, y), (other_x, y), (other_x, other_y), (x, other_y)])
        return Polygon(tuple(rings))
    raise InputError(f"an object of the type '{kind}', which is not known; expected polygon, bitmap or rectangle")


def _bitmap(data: str) -> NDArray[np.bool_]:
    most = int(decode_limit() // BYTES_PER_PIXEL)
    unpacker = zlib.decompressobj()
    try:
        png = unpacker.decompress(base64.b64decode(data), most)
    except zlib.error as error:
        raise InputError(f"a bitmap that can't be unpacked ({error})") from error
    with open_with_pillow(png) as image:
        if image.has_transparency_data:
            return np.asarray(image.convert("RGBA"))[..., 3] > 0
        return np.asarray(image.convert("L")) > 0


def _read_meta(file: Path) -> dict[str, str]:
    with form_of(META):
        return {thing["title"]: thing.get("color", "") for thing in read_json(file)["classes"]}


class Supervisely(AnnotatedSource):
    """Supervisely: ``meta.json``, ``DATASET/img/NAME.jpg`` and ``DATASET/ann/NAME.jpg.json``.

    Datasets called ``train``, ``val`` or ``test`` are splits. Objects lie over one another as they follow in the file.
    """

    kind = "supervisely"
    default_overlap = "last"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene

    def __init__(self, root: Path, overlap: Overlap | None = None) -> None:
        super().__init__(root, overlap)
        if not (root / "meta.json").is_file():
            raise DatasetError(
                f"{root} is not a project of Supervisely: expected meta.json in it, and img and ann in the folder of "
                "each dataset; in Supervisely: Export > Supervisely format"
            )

    @cached_property
    def _meta(self) -> dict[str, str]:
        return parsed(self.root / "meta.json", _read_meta)

    def class_names(self) -> Sequence[str]:
        return list(self._meta)

    def class_colors(self) -> Mapping[str, Color]:
        return {name: hex_color(color) for name, color in self._meta.items() if color}

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        pairs: dict[str, list[Listed]] = {}
        for folder in visible(self.root.rglob("ann")):
            dataset = folder.parent.relative_to(self.root).as_posix()
            split = usual_split(dataset) if usual_split(dataset) in ("train", "val", "test") else UNNAMED
            for file in visible(folder.glob("*.json")):
                image = folder.parent / "img" / file.name.removesuffix(".json")
                pairs.setdefault(split, []).append(self.pair(f"{dataset}/{image.stem}", image, file))
        if not pairs:
            raise DatasetError(f"{self.root} has no annotations: expected DATASET/ann/NAME.jpg.json")
        return pairs
