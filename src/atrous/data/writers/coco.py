"""COCO: outlines for parts without holes, run lengths for those with holes, and crowds for ignored pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.outlines import outlines_of
from atrous.data.files.rasterise import rasterise
from atrous.data.files.rle import pack_runs, runs_of
from atrous.data.writers.base import Classes, Example
from atrous.labels import IGNORE, LabelSet, Mask

Json = dict[str, Any]


def place(split: str, name: str, suffix: str) -> str:
    """Images lie in ``images/SPLIT``."""
    return f"images/{split}/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``annotations/instances_SPLIT.json``: an annotation for each part whose pixels share edges."""
    classes = Classes.of(label_set)
    categories = [{"id": label, "name": name} for label, name in classes.names.items() if label != IGNORE]
    files: dict[str, Json] = {}
    for example in examples:
        data = files.setdefault(example.split, {"images": [], "annotations": [], "categories": categories})
        height, width = example.mask.shape
        file = example.image.relative_to(folder / "images" / example.split).as_posix()
        image = {"id": len(data["images"]) + 1, "file_name": file, "height": height, "width": width}
        data["images"].append(image)
        for annotation in _annotations(example.mask, classes, categories[0]["id"]):
            number = len(data["annotations"]) + 1
            data["annotations"].append({"id": number, "image_id": image["id"], **annotation})
    (folder / "annotations").mkdir()
    for split, data in files.items():
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(data), encoding="utf-8")


def _annotations(mask: Mask, classes: Classes, first: object) -> list[Json]:
    found: list[Json] = []
    for label in classes.present(mask):
        inside = mask == label
        if label == IGNORE:  # in one piece: no object is one of a crowd
            found.append({"category_id": first, "iscrowd": 1, **_runs(inside)})
            continue
        for outline in outlines_of(inside):
            shape: Json
            if outline.holes:
                rings = [ring.astype(np.float64) for ring in (outline.outer, *outline.holes)]
                window = rasterise(rings, *mask.shape)
                part = np.zeros(mask.shape, np.bool_)
                window.of(part)[...] = window.inside
                shape = _runs(part)
            else:
                shape = {"segmentation": [outline.outer.ravel().tolist()], **_measures(outline.outer)}
            found.append({"category_id": label, "iscrowd": 0, **shape})
    return found


def _runs(inside: NDArray[np.bool_]) -> Json:
    rows, columns = np.nonzero(inside)
    corner = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    runs = {"size": list(inside.shape), "counts": pack_runs(runs_of(inside))}
    return {"segmentation": runs, **_measures(corner), "area": len(rows)}


def _measures(ring: NDArray[np.int64]) -> Json:
    """The box of a ring, and the area inside it."""
    x, y = ring.T
    left, top = int(x.min()), int(y.min())
    area = abs(int(x @ np.roll(y, -1) - y @ np.roll(x, -1))) // 2
    return {"bbox": [left, top, int(x.max()) - left, int(y.max()) - top], "area": area}
