"""CVAT for images 1.1: a mask for each part, which CVAT imports into a task of the same images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from atrous.data.files.rle import rows_of
from atrous.data.writers.base import Classes, Example, hex_of, parts_of
from atrous.labels import LabelSet


def place(split: str, name: str, suffix: str) -> str:
    """Images lie in ``images/SPLIT``: a split is a subset."""
    return f"images/{split}/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``annotations.xml``."""
    classes = Classes.of(label_set)
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "project"), "labels")
    for number, name in classes.names.items():
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = hex_of(classes.colors[number])
    for number, example in enumerate(examples):
        _add_image(root, number, example, classes, folder)
    ElementTree.indent(root)
    data = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    (folder / "annotations.xml").write_bytes(data)


def _add_image(root: ElementTree.Element, number: int, example: Example, classes: Classes, folder: Path) -> None:
    height, width = (str(side) for side in example.mask.shape)
    name = example.image.relative_to(folder / "images" / example.split).as_posix()
    attributes = {"id": str(number), "name": name, "subset": example.split, "width": width, "height": height}
    image = ElementTree.SubElement(root, "image", attributes)
    for part in parts_of(example.mask, classes):
        rows, columns = part.inside.shape
        box = {"left": part.left, "top": part.top, "width": columns, "height": rows, "z_order": 0}
        shape = {"label": classes.names[part.label], "source": "file", "occluded": "0"}
        runs = ", ".join(map(str, rows_of(part.inside)))
        ElementTree.SubElement(image, "mask", {**shape, "rle": runs, **{key: str(value) for key, value in box.items()}})
