"""CVAT: "CVAT for images 1.1" (XML of polygons, masks and ellipses), and "Segmentation mask 1.1" (coloured PNGs)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple
from xml.etree import ElementTree

import numpy as np

from atrous.data.files.documents import form_of, parsed, read_xml
from atrous.data.files.find import is_dir
from atrous.data.files.shapes import Ellipse, Geometry, Overlap, Polygon, RowRuns, Scene, Shape
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource, ImageFinder, hex_color
from atrous.data.sources.base import DatasetSource, Listed
from atrous.data.sources.cvat_masks import CvatMasks
from atrous.data.sources.names import usual_split, visible
from atrous.errors import DatasetError, InputError
from atrous.labels import Color

FORM = 'an annotations.xml of "CVAT for images 1.1" (CVAT: Actions > Export task dataset)'
DEFAULT_SUBSET = "default"
_AREALESS = ("box", "polyline", "points", "cuboid", "skeleton")
XmlElement = ElementTree.Element


class Frame(NamedTuple):
    """An image of a task: its name in the file, its subset, and its shapes."""

    name: str
    subset: str
    scene: Scene


class Exported(NamedTuple):
    """What a file contains: the classes with their colours, and the images by a key that tells subsets apart."""

    names: tuple[str, ...]
    colors: Mapping[str, Color]
    frames: Mapping[str, Frame]


def read_export(file: Path) -> Exported:
    """Read a file of annotations.

    Raises:
        InputError: not in CVAT's form.
    """
    with form_of(FORM):
        root = read_xml(file)
        if root.tag != "annotations":
            raise InputError(f"its root is <{root.tag}>")
        if next(root.iter("track"), None) is not None and root.find("image") is None:
            raise InputError(
                'a file of "CVAT for video 1.1", whose shapes are tracks; export the task as "CVAT for images 1.1" or '
                '"Segmentation mask 1.1"'
            )
        labels = [label for label in root.iter("label") if label.find("name") is not None]
        colors = {_text(label, "name"): hex_color(_text(label, "color")) for label in labels if _text(label, "color")}
        names = tuple(dict.fromkeys(_text(label, "name") for label in labels))
        return Exported(names, colors, _frames(root))


def _text(element: XmlElement, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _frames(root: XmlElement) -> dict[str, Frame]:
    frames: dict[str, Frame] = {}
    for image in root.iter("image"):
        name, subset = image.attrib["name"], image.get("subset") or ""
        key = f"{subset}/{name}" if subset else name
        if key in frames:
            raise InputError(f"two images are called {key}; export their tasks one by one")
        frames[key] = Frame(name, subset, _scene(image))
    return frames


def _scene(image: XmlElement) -> Scene:
    shapes = list(enumerate(image, 1))
    refused = tuple(
        f"shape {place} ('{shape.get('label')}', {shape.tag})" for place, shape in shapes if shape.tag in _AREALESS
    )
    drawn = tuple(
        Shape(shape.attrib["label"], _geometry(shape), float(shape.get("z_order") or 0), f"shape {place}")
        for place, shape in shapes
        if shape.tag not in (*_AREALESS, "tag")
    )
    return Scene(int(image.attrib["height"]), int(image.attrib["width"]), drawn, refused)


def _geometry(shape: XmlElement) -> Geometry:
    if shape.tag == "polygon":
        points = [[float(value) for value in point.split(",")] for point in shape.attrib["points"].split(";")]
        if len(points) < 3 or any(len(point) != 2 for point in points):
            raise InputError(f"a polygon with the points {shape.attrib['points']!r}")
        return Polygon((np.array(points),), "coco")
    top, left, height, width = (int(float(shape.get(key, 0))) for key in ("top", "left", "height", "width"))
    if shape.tag == "mask":
        return RowRuns(top, left, height, width, np.array(shape.attrib["rle"].split(","), np.int64).tolist())
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
        return Ellipse(x, y, radius_x, radius_y, float(shape.get("rotation") or 0))
    raise InputError(f"a shape <{shape.tag}>, which is not known; expected polygon, mask or ellipse")


def read_scene(file: Path, image: str) -> Scene:
    """The shapes of an image of a file.

    Raises:
        InputError: the file can't be read, or has no such image.
    """
    return parsed(file, read_export).frames[image].scene


class Cvat(AnnotatedSource):
    """CVAT for images 1.1: XML files in the folder, and their images in it or below it, usually in ``images``.

    The subsets of a project are splits. Shapes lie over one another by their ``z_order``.
    """

    kind = "cvat"
    default_overlap = "order"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene

    @cached_property
    def _exports(self) -> dict[Path, Exported]:
        files = [self.root] if self.root.is_file() else visible(self.root.glob("*.xml"))
        return {file: parsed(file, read_export) for file in files}

    def class_names(self) -> Sequence[str]:
        return list(dict.fromkeys(name for read in self._exports.values() for name in read.names))

    def class_colors(self) -> Mapping[str, Color]:
        return {name: color for read in self._exports.values() for name, color in read.colors.items()}

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        finder = ImageFinder(self.folder / "images", self.folder)
        pairs: dict[str, list[Listed]] = {}
        for file, read in self._exports.items():
            for key, frame in read.frames.items():
                split = usual_split(frame.subset) if frame.subset not in ("", DEFAULT_SUBSET) else UNNAMED
                name = Path(key).with_suffix("").as_posix()
                pairs.setdefault(split, []).append(self.pair(name, _find(finder, frame, file), file, key))
        return pairs


def _find(finder: ImageFinder, frame: Frame, file: Path) -> Path:
    try:
        below = finder.find(f"{frame.subset}/{frame.name}") if frame.subset else None
        return below if below and below.is_file() else finder.find(frame.name)
    except InputError as error:
        raise DatasetError(f"{file}: {error}") from error


def open_cvat(root: Path, overlap: Overlap | None = None) -> DatasetSource:
    """Open either of CVAT's exports.

    Raises:
        DatasetError: neither is there.
    """
    if is_dir(root) and (root / "labelmap.txt").is_file():
        return CvatMasks(root)
    if not is_dir(root) or visible(root.glob("*.xml")):
        return Cvat(root, overlap)
    raise DatasetError(
        f'{root} is not an export of CVAT: expected annotations.xml ("CVAT for images 1.1") or labelmap.txt '
        '("Segmentation mask 1.1") in it; in CVAT: Actions > Export task dataset'
    )
