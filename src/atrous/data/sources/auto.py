"""Recognising what wrote a folder or a file: ``auto:PATH``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from atrous.data.files.documents import read_json
from atrous.data.files.find import has_images
from atrous.data.sources.coco import ROBOFLOW
from atrous.data.sources.names import folders_in, visible
from atrous.data.sources.roboflow import TABLE
from atrous.errors import DatasetError, InputError


def recognise(root: Path) -> str:
    """The name of the source that reads a folder or a file.

    Raises:
        DatasetError: none does, or several do; the message says what is there.
    """
    found = list(dict.fromkeys(kind for kind, fits in _RULES if fits(root)))
    if len(found) > 1:
        choices = ", ".join(f"{kind}:{root}" for kind in found)
        raise DatasetError(f"'{root}' looks like several things: say which, {choices}")
    if not found:
        found = [kind for kind in map(_of_json, _json_files(root)) if kind][:1]
    if not found and root.is_dir():  # labelme's may lie in folders
        found = [kind for kind in map(_of_json, sorted(root.rglob("*.json"))[:5]) if kind == "labelme"][:1]
    if not found:
        raise DatasetError(f"'{root}' is not in a form that is recognised{_why_not(root)}")
    return found[0]


def _why_not(root: Path) -> str:
    if (root / "SegmentationObject").is_dir():
        return (
            ": SegmentationObject numbers the objects of each image, not the classes; export SegmentationClass too, "
            "and read it as voc:PATH or cvat:PATH"
        )
    there = ", ".join([*(f"{name}/" for name in folders_in(root)[:6]), *(file.name for file in _files(root)[:6])])
    inside = ", ".join(f"auto:{root / name} ({kind})" for name, kind in _inside(root))
    known = f"in it are {inside}" if inside else "docs/sources.md lists the forms that can be read"
    return f": it has {there or 'nothing'}; {known}"


def _inside(root: Path) -> list[tuple[str, str]]:
    """The folders in a folder that are recognised, and what they are."""
    found = []
    for name in folders_in(root)[:20]:
        kinds = list(dict.fromkeys(kind for kind, fits in _RULES if fits(root / name)))
        if len(kinds) == 1:
            found.append((name, kinds[0]))
    return found[:6]


def _files(root: Path) -> list[Path]:
    return [file for file in visible(root.glob("*")) if file.is_file()] if root.is_dir() else [root]


def _json_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix == ".json" else []
    return visible(root.glob("*.json"))[:20]


def _of_json(file: Path) -> str | None:
    """What wrote a JSON file, by its keys."""
    try:
        data = read_json(file)
    except (InputError, OSError, json.JSONDecodeError):
        return None
    first = data[0] if isinstance(data, list) and data else None
    if isinstance(first, dict) and "id" in first and ("annotations" in first or "annotator" in first):
        return "labelstudio"
    if not isinstance(data, dict):
        return None
    keys = set(data)
    values = [value for value in data.values() if isinstance(value, dict)]
    if "_via_img_metadata" in keys or (values and all({"filename", "regions"} <= set(value) for value in values)):
        return "via"
    return next((kind for kind, needed in _KEYS.items() if needed <= keys), None)


_KEYS = {
    "hasty": {"export_format_version", "label_classes", "images"},
    "labelme": {"shapes", "imagePath"},
    "coco": {"images", "annotations", "categories"},
}
"""The keys that the JSON of a tool has, by the name of its source."""


def _has(*names: str) -> Callable[[Path], bool]:
    """Whether a folder has all of these files or folders, or patterns of them."""
    return lambda root: root.is_dir() and all(next(root.glob(name), None) for name in names)


def _names_classes(root: Path) -> bool:
    """Whether one of the files is there with which CVAT and labelme name the classes of masks in VOC's folders."""
    return any((root / name).is_file() for name in ("labelmap.txt", "class_names.txt"))


def _has_yolo(root: Path) -> bool:
    yaml = root.suffix in (".yaml", ".yml")
    return yaml if root.is_file() else (root / "data.yaml").is_file()


_RULES: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("folder", _has("images", "masks")),
    ("folder", lambda root: _has("images")(root) and not (root / "masks").exists() and has_images(root / "labels")),
    ("cvat", _has("labelmap.txt", "SegmentationClass")),
    ("cvat", lambda root: _is_cvat(root)),
    ("labelme", _has("class_names.txt", "SegmentationClass")),
    ("voc", lambda root: _has("JPEGImages", "SegmentationClass")(root) and not _names_classes(root)),
    ("coco", _has("annotations/instances_*.json")),
    ("coco-stuff", lambda root: _has("annotations/stuff_*.json")(root) and not _has("annotations/instances_*")(root)),
    ("panoptic", lambda root: _has("annotations/panoptic_*.json")(root) and not _has("annotations/instances_*")(root)),
    ("roboflow", _has(f"*/{TABLE}")),
    ("roboflow", _has(f"*/{ROBOFLOW}")),
    ("yolo", _has_yolo),
    ("supervisely", lambda root: _has("meta.json")(root) and next(root.rglob("ann"), None) is not None),
    (
        "geojson",
        lambda root: _has("images", "labels")(root) and next(root.glob("labels/**/*.geojson"), None) is not None,
    ),
    ("hasty", _has("label_classes.json")),
    ("mapillary", _has("config_v*.json")),
    ("cityscapes", _has("leftImg8bit", "gtFine")),
    ("camvid", _has("train.txt", "trainannot")),
    ("webdataset", lambda root: root.suffix == ".tar" or _has("*.tar")(root)),
    ("hf", _has("dataset_info.json")),
    ("hf", _has("dataset_dict.json")),
)


def _is_cvat(root: Path) -> bool:
    files = [root] if root.is_file() else visible(root.glob("*.xml"))
    return any(file.suffix == ".xml" and b"<annotations>" in file.read_bytes()[:400] for file in files)
