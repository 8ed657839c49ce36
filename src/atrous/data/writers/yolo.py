"""YOLO segmentation: polygons along the edges of pixels, with keyholes, and ``data.yaml``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from atrous.data.files.outlines import keyhole, outlines_of
from atrous.data.writers.base import Classes, Example
from atrous.labels import LabelSet


def place(split: str, name: str, suffix: str) -> str:
    """Images lie in ``images/SPLIT``."""
    return f"images/{split}/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``labels/SPLIT/NAME.txt`` and ``data.yaml``; ignored pixels are the last class, ``ignore``."""
    classes = Classes.of(label_set)
    number = {label: place for place, label in enumerate(classes.names)}
    splits: dict[str, str] = {}
    for example in examples:
        splits[example.split] = f"images/{example.split}"
        height, width = example.mask.shape
        lines = []
        for label in classes.present(example.mask):
            for outline in outlines_of(example.mask == label):
                ring = (keyhole(outline) / (width, height)).ravel().tolist()
                lines.append(f"{number[label]} " + " ".join(f"{value:.8g}" for value in ring))
        below = example.image.relative_to(folder / "images").with_suffix(".txt")
        file = folder / "labels" / below
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = {number[label]: name for label, name in classes.names.items()}
    text = yaml.safe_dump({**splits, "names": names}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
