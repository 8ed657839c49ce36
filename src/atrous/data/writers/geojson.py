"""GeoJSON in pixels: polygons with holes, in the order of rows from the top, as QuPath and others read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from atrous.data.files.outlines import Corners, outlines_of
from atrous.data.sources.geojson import CLASSES
from atrous.data.writers.base import Classes, Example
from atrous.labels import LabelSet


def place(split: str, name: str, suffix: str) -> str:
    """Images lie in ``images/SPLIT``."""
    return f"images/{split}/{name}{suffix}"


def write(folder: Path, examples: Iterable[Example], label_set: LabelSet) -> None:
    """Write ``labels/SPLIT/NAME.geojson``, a feature for each part whose pixels share edges, and ``classes.txt``."""
    classes = Classes.of(label_set)
    (folder / CLASSES).write_text("".join(f"{name}\n" for name in classes.names.values()), encoding="utf-8")
    for example in examples:
        features = [
            {
                "type": "Feature",
                "properties": {"class": classes.names[label]},
                "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in (part.outer, *part.holes)]},
            }
            for label in classes.present(example.mask)
            for part in outlines_of(example.mask == label)
        ]
        file = folder / "labels" / example.image.relative_to(folder / "images").with_suffix(".geojson")
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)
        file.write_text(text, encoding="utf-8")


def _closed(ring: Corners) -> list[list[int]]:
    corners: list[list[int]] = ring.tolist()
    return [*corners, corners[0]]
