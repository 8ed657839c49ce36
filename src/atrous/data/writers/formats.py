"""The forms in which a dataset can be written, by name."""

from __future__ import annotations

from atrous.data.writers import coco, cvat, geojson, labelme, labelstudio, voc, yolo
from atrous.data.writers.base import Format

FORMATS: dict[str, Format] = {
    "coco": Format(coco.place, coco.write, "coco"),
    "yolo": Format(yolo.place, yolo.write, "yolo"),
    "cvat": Format(cvat.place, cvat.write, "cvat"),
    "labelstudio": Format(labelstudio.place, labelstudio.write, "labelstudio"),
    "labelme": Format(labelme.place, labelme.write, "labelme"),
    "voc": Format(voc.place, voc.write, "cvat"),
    "geojson": Format(geojson.place, geojson.write, "geojson"),
}
"""Beside ``folder``, a folder of images, masks, ``labels.toml`` and lists."""
