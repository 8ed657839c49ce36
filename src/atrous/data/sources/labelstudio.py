"""Label Studio: its exports JSON and JSON-MIN, with brushes, polygons, rectangles and ellipses."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.documents import form_of, parsed, read_json, read_xml
from atrous.data.files.find import SUFFIXES
from atrous.data.files.pillow import open_with_pillow
from atrous.data.files.shapes import Bitmap, Brush, Ellipse, Geometry, Polygon, Scene, Shape
from atrous.data.sources.annotated import UNNAMED, AnnotatedSource, ImageFinder
from atrous.data.sources.base import Listed
from atrous.data.sources.names import only_json
from atrous.errors import DatasetError, InputError

FORM = "an export of Label Studio as JSON or JSON-MIN (Project > Export): a list of tasks with their annotations"
KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "bitmasklabels")
"""The labels of regions that cover an area."""
_AREALESS = ("keypointlabels", "vectorlabels")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts in front of the name of an uploaded file."""
Json = Mapping[str, Any]


class Task(NamedTuple):
    """An image: where Label Studio has it, its field ``split``, and its shapes; None if it was not annotated."""

    image: str
    split: str
    scene: Scene | None


CONFIG = "label_config.xml"
"""The labelling interface of the project, which may be copied from its settings beside the export."""


def _labels(file: Path) -> list[str]:
    """The names of the classes in a labelling interface, in their order."""
    names = [element.get("value") or "" for element in read_xml(file).iter("Label")]
    return [name for name in names if name]


def read_export(file: Path) -> dict[str, Task]:
    """The tasks of a file, by their ids.

    Raises:
        InputError: not in Label Studio's form.
    """
    with form_of(FORM):
        data = read_json(file)
        if not isinstance(data, list) or not all(isinstance(task, dict) for task in data):
            raise InputError("not a list of tasks")
        return {f"task {task['id']}": _task(task) for task in data}


def _task(task: Json) -> Task:
    minimal = "data" not in task
    image = _image_of(task if minimal else task["data"], task["id"])
    regions = _minimal(task) if minimal else _regions(task)
    split = str((task if minimal else task["data"]).get("split") or UNNAMED)
    return Task(image, split, None if regions is None else _scene(regions, task["id"]))


def _image_of(data: Json, task: object) -> str:
    """The value of a task that is the name of an image."""
    strings = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [value for value in strings.values() if Path(_path(value)).suffix.lower() in SUFFIXES]
    named = list(dict.fromkeys(named)) or [strings[key] for key in ("image", "img") if key in strings]
    if len(named) != 1:
        raise InputError(f"task {task} has {len(named)} images, expected one; its fields are {', '.join(data)}")
    return named[0]


def _path(url: str) -> str:
    """The path of a file in an address: Label Studio serves local files as ``/data/local-files/?d=PATH``."""
    parts = urlsplit(url)
    return parse_qs(parts.query).get("d", [parts.path])[0] if parts.scheme != "s3" else parts.path


def _regions(task: Json) -> list[Json] | None:
    """The regions of a task: of the annotation that is marked as ground truth, else of the one that is latest."""
    done = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    chosen = [annotation for annotation in done if annotation.get("ground_truth")] or done
    if not chosen:
        return None
    latest = max(chosen, key=lambda annotation: str(annotation.get("updated_at") or annotation.get("created_at") or ""))
    return [
        {**region["value"], **{key: region[key] for key in region if key.startswith(("original_", "image_"))}}
        for region in latest["result"]
        if set(KINDS + _AREALESS) & set(region["value"])
    ]


def _minimal(task: Json) -> list[Json]:
    """The regions of a task of JSON-MIN, in whose keys the names of the labelling controls are."""
    lists = (value for value in task.values() if isinstance(value, list))
    regions = (region for value in lists for region in value if isinstance(region, dict))
    return [region for region in regions if set(KINDS + _AREALESS) & set(region)]


def _scene(regions: Sequence[Json], task: object) -> Scene:
    sizes = {(int(region["original_height"]), int(region["original_width"])) for region in regions}
    if len(sizes) > 1:
        raise InputError(f"task {task} has regions on images of {len(sizes)} sizes")
    height, width = sizes.pop() if sizes else (0, 0)
    if turned := [region["image_rotation"] for region in regions if region.get("image_rotation")]:
        raise InputError(f"task {task} was annotated on an image turned by {turned[0]}°; turn it back and export again")
    shapes, refused = [], []
    for place, region in enumerate(regions, 1):
        (kind,) = set(KINDS + _AREALESS) & set(region)
        for name in region[kind]:
            if kind in _AREALESS:
                refused.append(f"region {place} ('{name}', {kind})")
            else:
                shapes.append(Shape(name, _geometry(kind, region, height, width), 0, f"region {place}"))
    return Scene(height, width, tuple(shapes), tuple(refused))


def _geometry(kind: str, region: Json, height: int, width: int) -> Geometry:
    scale = np.array([width, height]) / 100  # lengths are percentages of the image's
    if kind == "brushlabels":
        if region.get("format", "rle") != "rle":
            raise InputError(f"a brush of the format {region['format']!r}, expected 'rle'")
        return Brush(bytes(region["rle"]))
    if kind == "bitmasklabels":
        return Bitmap(0, 0, partial(_bitmap, region["imageDataURL"]))
    if kind == "polygonlabels":
        return Polygon((np.array(region["points"], np.float64).reshape(-1, 2) * scale,))
    x, y = np.array([region["x"], region["y"]]) * scale
    angle = float(region.get("rotation") or 0)
    if kind == "ellipselabels":
        radius_x, radius_y = np.array([region["radiusX"], region["radiusY"]]) * scale
        return Ellipse(float(x), float(y), float(radius_x), float(radius_y), angle)
    wide, high = np.array([region["width"], region["height"]]) * scale
    turn = np.deg2rad(angle)  # around the upper left corner
    along, down = np.array([np.cos(turn), np.sin(turn)]) * wide, np.array([-np.sin(turn), np.cos(turn)]) * high
    corner = np.array([x, y])
    return Polygon((np.array([corner, corner + along, corner + along + down, corner + down]),))


def _bitmap(url: str) -> NDArray[np.bool_]:
    with open_with_pillow(base64.b64decode(url.partition(",")[2])) as image:
        if image.has_transparency_data:
            return np.asarray(image.convert("RGBA"))[..., 3] >= 128
        return np.asarray(image.convert("L")) >= 128


def read_scene(file: Path, image: str) -> Scene:
    """The shapes of a task.

    Raises:
        InputError: the file can't be read.
    """
    scene = parsed(file, read_export)[image].scene
    if scene is None:
        raise InputError("it was not annotated")
    return scene


class LabelStudio(AnnotatedSource):
    """Label Studio's JSON or JSON-MIN in the folder, and the images in it or below it.

    Classes are in alphabetical order, since an export does not contain the project's list, or as in a
    ``label_config.xml`` beside it. Tasks without an annotation are in no split. A field ``split`` of tasks names their
    splits. Regions lie over one another as they follow in the file.
    """

    kind = "labelstudio"
    default_overlap = "last"
    reader: ClassVar[Callable[[Path, str], Scene]] = read_scene

    @cached_property
    def file(self) -> Path:
        """The export."""
        return only_json(self.root, self.kind, FORM)

    @property
    def _annotated(self) -> Iterator[tuple[str, Task, Scene]]:
        for key, task in parsed(self.file, read_export).items():
            if task.scene is not None:
                yield key, task, task.scene

    def class_names(self) -> Sequence[str]:
        config = self.folder / CONFIG
        listed = parsed(config, _labels) if config.is_file() else ()
        return [*listed, *sorted({shape.name for _, _, scene in self._annotated for shape in scene.shapes})]

    def entries(self) -> Mapping[str, Sequence[Listed]]:
        finder = ImageFinder(self.folder)
        pairs: dict[str, list[Listed]] = {}
        for key, task, _ in self._annotated:
            image = self._find(finder, task.image)
            name = image.relative_to(self.folder) if image.is_relative_to(self.folder) else Path(image.name)
            pair = self.pair(name.with_suffix("").as_posix(), image, self.file, key)
            pairs.setdefault(task.split, []).append(pair)
        return pairs

    def _find(self, finder: ImageFinder, address: str) -> Path:
        path = _path(address)
        folder, _, name = path.rpartition("/")
        try:
            found = finder.find(path)
            bare = f"{folder}/{_UPLOADED.sub('', name)}"
            return found if found.is_file() or bare == path else finder.find(bare)
        except InputError as error:
            raise DatasetError(f"{self.file}: {error}") from error
