"""GeoJSON in pixels: a file of polygons for each image, as ``atrous data convert --to geojson`` writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from atrous.data.files.documents import form_of, read_json
from atrous.data.files.find import find_images
from atrous.data.files.shapes import Overlap, Polygon, Scene, Shape
from atrous.data.files.threads import read_all
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource
from atrous.data.sources.base import Listed
from atrous.data.sources.names import read_lines, usual_split
from atrous.errors import DatasetError, InputError

FORM = "a FeatureCollection of Polygons and MultiPolygons in pixels, each with the property 'class'"

CLASSES = "classes.txt"
"""The file beside ``images`` in which the classes may be listed in their order, one a line."""


def read_scene(file: Path, image: str) -> Scene:  # noqa: ARG001 - a file has one image
    """The polygons of a file; the first ring is outside, the others are holes.

    Raises:
        InputError: not in this form.
    """
    with form_of(FORM):
        shapes = []
        for place, feature in enumerate(read_json(file)["features"], 1):
            geometry, name = feature["geometry"], str(feature["properties"]["class"])
            if geometry["type"] not in ("Polygon", "MultiPolygon"):
                raise InputError(f"feature {place} is a {geometry['type']}")
            polygons: list[Any] = geometry["coordinates"]
            for rings in [polygons] if geometry["type"] == "Polygon" else polygons:
                corners = tuple(np.array(ring, np.float64).reshape(-1, 2) for ring in rings)
                shapes.append(Shape(name, Polygon(corners), 0, f"feature {place}"))
        return Scene(0, 0, tuple(shapes))


class GeoJson(AnnotatedSource):
    """``images/SPLIT/NAME.jpg`` and ``labels/SPLIT/NAME.geojson``; images without a file are in no split."""

    kind = "geojson"
    default_overlap = "last"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene

    def __init__(self, root: Path, overlap: Overlap | None = None) -> None:
        super().__init__(root, overlap)
        if not (root / "images").is_dir() or not (root / "labels").is_dir():
            raise DatasetError(f"{root} has no folders images and labels, with labels/NAME.geojson for images/NAME.jpg")

    @cached_property
    def _files(self) -> list[tuple[Path, Path]]:
        images = ((image.path, image.relative) for image in find_images([self.root / "images"]))
        pairs = [(path, self.root / "labels" / relative.with_suffix(".geojson")) for path, relative in images]
        return [(path, file) for path, file in pairs if file.is_file()]

    def class_names(self) -> Sequence[str]:
        read = list(read_all(_names, [file for _, file in self._files]))
        listed = read_lines(self.root / CLASSES, self.root) if (self.root / CLASSES).is_file() else []
        return [*listed, *sorted({name for names in read for name in names})]

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        pairs: dict[str, list[Listed]] = {}
        for image, file in self._files:
            name = image.relative_to(self.root / "images").with_suffix("")
            split = usual_split(name.parts[0]) if len(name.parts) > 1 else UNNAMED
            pairs.setdefault(split, []).append(self.pair(name.as_posix(), image, file))
        return pairs


def _names(file: Path) -> set[str]:
    try:
        return {shape.name for shape in read_scene(file, "").shapes}
    except InputError as error:
        raise DatasetError(f"{file}: {error}") from error
