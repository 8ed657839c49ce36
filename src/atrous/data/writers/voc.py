"""VOC's folders with a ``labelmap.txt``, as CVAT imports them ("Segmentation mask 1.1")."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from atrous.data.writers.base import IGNORED, Example
from atrous.errors import DatasetError
from atrous.labels import VOID_COLOR, LabelSet, encode_mask


def place(split: str, name: str, suffix: str) -> str:  # noqa: ARG001 - VOC has lists, and one folder of images
    """Images lie in ``JPEGImages``."""
    return f"JPEGImages/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``SegmentationClass/NAME.png``, ``ImageSets/Segmentation/SPLIT.txt`` and ``labelmap.txt``.

    Raises:
        DatasetError: two classes have one colour, or one has the colour of ignored pixels.
    """
    if len({*label_set.colors, VOID_COLOR}) < len(label_set) + 1:
        raise DatasetError("two classes have one colour, and labelmap.txt tells classes apart by colours")
    if marked := [name for name in label_set.names if ":" in name]:
        raise DatasetError(f"the class '{marked[0]}' has a colon, which ends a name in labelmap.txt; rename it")
    lists: dict[str, list[str]] = {}
    for example in examples:
        file = folder / "SegmentationClass" / f"{example.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_mask(example.mask, label_set))
        lists.setdefault(example.split, []).append(example.name)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        text = "".join(f"{name}\n" for name in names)
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text, encoding="utf-8")
    table = [*zip(label_set.names, label_set.colors, strict=True), (IGNORED, VOID_COLOR)]
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{r},{g},{b}::" for name, (r, g, b) in table)]
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
