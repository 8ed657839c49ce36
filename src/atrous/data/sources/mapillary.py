"""Mapillary Vistas (Neuhold et al., ICCV 2017), versions 1.2 and 2.0: label PNGs, or polygons where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.drawn import DrawnMask
from atrous.data.files.find import SUFFIXES
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile, MaskRef
from atrous.data.files.shapes import Overlap, Polygon, Scene, Shape
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import did_you_mean, folders_in, usual_split, visible
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, LabelSet

VERSIONS = ("v2.0", "v1.2")
CONFIG = "a config of Mapillary Vistas: labels, each with a name, a color and evaluate"
FORM = "polygons of Mapillary Vistas or Cityscapes: objects, each with a label and a polygon [[x, y], …]"


def read_polygons(file: Path, image: str) -> Scene:  # noqa: ARG001 - a file has one image
    """The polygons of an image; Pillow draws them, as the label PNGs were drawn.

    Raises:
        InputError: not in this form.
    """
    with form_of(FORM):
        shapes = []
        for place, thing in enumerate(read_json(file)["objects"], 1):
            if not thing.get("deleted"):
                ring = np.array(thing["polygon"], np.float64).reshape(-1, 2)
                if len(ring) < 3:
                    raise InputError(f"object {place} has a polygon of {len(ring)} points")
                shapes.append(Shape(thing["label"], Polygon((ring,), "pillow"), 0, f"object {place}"))
        return Scene(0, 0, tuple(shapes))


def _read_config(file: Path) -> list[Mapping[str, Any]]:
    with form_of(CONFIG):
        return [
            {"name": str(label["name"]), "color": tuple(label["color"]), "evaluate": bool(label["evaluate"])}
            for label in read_json(file)["labels"]
        ]


class Mapillary(PublishedSource):
    """``config_v2.0.json``, ``training/images/NAME.jpg`` and ``training/v2.0/labels/NAME.png`` (or ``polygons``), the
    same of ``validation``; version 1.2 where there is no 2.0. Labels that are not evaluated are ignored.
    """

    kind = "mapillary"

    def __init__(self, root: Path, overlap: Overlap | None = None) -> None:
        self.root, self.overlap = root, overlap or "last"
        self.version = next((version for version in VERSIONS if (root / f"config_{version}.json").is_file()), "")
        if not self.version:
            raise DatasetError(
                f"{root} is not Mapillary Vistas: expected config_v2.0.json (or config_v1.2.json), and in training and "
                "validation the folders images and v2.0/labels; it is downloaded from mapillary.com/dataset/vistas"
            )

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}" + ("" if self.overlap == "last" else f"?overlap={self.overlap}")

    @cached_property
    def _config(self) -> list[Mapping[str, Any]]:
        return parsed(self.root / f"config_{self.version}.json", _read_config)

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        values = [value for value, label in enumerate(self._config) if label["evaluate"]]
        ignored = tuple(value for value in range(len(self._config)) if value not in values)
        names = tuple(self._config[value]["name"] for value in values)
        try:
            label_set = LabelSet(names, tuple(self._config[value]["color"] for value in values))
        except InputError as error:
            raise DatasetError(f"{self.root / f'config_{self.version}.json'}: {error}") from error
        return MaskForm(label_set, values=tuple(values), ignore=ignored)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {
            usual_split(name): self.root / name
            for name in folders_in(self.root)
            if usual_split(name) in ("train", "val")
        }

    def splits(self) -> list[str]:
        return sorted(self._folders)

    def list_file(self, split: str) -> Path:
        return self._folders.get(split, self.root / split) / "images"

    def listed(self, split: str) -> list[Listed]:
        if split not in self._folders:
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, self._folders)}; available splits: "
                f"{', '.join(self.splits())} (the labels of testing are not published)"
            )
        folder = self._folders[split]
        images = [file for file in visible((folder / "images").glob("*")) if file.suffix.lower() in SUFFIXES]
        return [Listed(image.stem, image, self._mask(folder / self.version, image)) for image in images]

    def _mask(self, folder: Path, image: Path) -> MaskRef:
        labels, polygons = folder / "labels" / f"{image.stem}.png", folder / "polygons" / f"{image.stem}.json"
        if labels.parent.is_dir() or not polygons.parent.is_dir():
            return MaskFile(labels)
        values = {label["name"]: value for value, label in enumerate(self._config)}
        return DrawnMask(polygons, "", image, read_polygons, values, self.overlap, IGNORE)
