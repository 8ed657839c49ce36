"""Label Studio: tasks with a brush for each class, to be imported beside the images."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atrous.data.files.rle import brush_of
from atrous.data.writers.base import Classes, Example, hex_of
from atrous.labels import LabelSet


def place(split: str, name: str, suffix: str) -> str:
    """Images lie in ``images/SPLIT``."""
    return f"images/{split}/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``tasks.json``, and ``label_config.xml`` for the project's labelling interface.

    Images are named as files of the folder that Label Studio serves (``LOCAL_FILES_DOCUMENT_ROOT``).
    """
    classes = Classes.of(label_set)
    tasks = [_task(number, example, classes, folder) for number, example in enumerate(examples, 1)]
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    labels = "".join(
        f'    <Label value="{_attribute(name)}" background="{hex_of(classes.colors[label])}"/>\n'
        for label, name in classes.names.items()
    )
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n  <BrushLabels name="tag" toName="image">\n'
        f"{labels}  </BrushLabels>\n</View>\n"
    )
    (folder / "label_config.xml").write_text(config, encoding="utf-8")


def _attribute(text: str) -> str:
    for character, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot")):
        text = text.replace(character, f"&{name};")
    return text


def _task(number: int, example: Example, classes: Classes, folder: Path) -> dict[str, Any]:
    height, width = example.mask.shape
    regions = []
    for label in classes.present(example.mask):
        value = {"format": "rle", "rle": brush_of(example.mask == label), "brushlabels": [classes.names[label]]}
        shown = {"original_height": height, "original_width": width, "image_rotation": 0, "type": "brushlabels"}
        regions.append({"id": f"{number}-{label}", "from_name": "tag", "to_name": "image", **shown, "value": value})
    image = quote(example.image.relative_to(folder).as_posix())
    return {
        "id": number,
        "data": {"image": f"/data/local-files/?d={image}", "split": example.split},
        "annotations": [{"result": regions, "was_cancelled": False}],
    }
