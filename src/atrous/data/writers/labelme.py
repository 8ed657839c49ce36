"""labelme: a JSON beside each image, with a mask for each part."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from atrous.data.writers.base import Classes, Example, Part, parts_of
from atrous.labels import IGNORE, LabelSet

VOID = "__ignore__"
VERSION = "5.5.0"
"""The first lines of the files name the release whose form they have."""


def place(split: str, name: str, suffix: str) -> str:
    """Images lie in the folder of their split, beside their JSON."""
    return f"{split}/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``SPLIT/NAME.json``, and ``labels.txt`` for ``labelme --labels labels.txt``."""
    classes = Classes.of(label_set)
    classes.names[IGNORE] = VOID
    for example in examples:
        height, width = example.mask.shape
        shapes = [_shape(part, classes) for part in parts_of(example.mask, classes)]
        data = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": example.image.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        example.image.with_suffix(".json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    names = [VOID, "_background_", *(name for label, name in classes.names.items() if label != IGNORE)]
    (folder / "labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _shape(part: Part, classes: Classes) -> dict[str, object]:
    Image.fromarray(part.inside).save(png := io.BytesIO(), "PNG")
    rows, columns = part.inside.shape
    return {
        "label": classes.names[part.label],
        "points": [[part.left, part.top], [part.left + columns - 1, part.top + rows - 1]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png.getvalue()).decode(),
    }
