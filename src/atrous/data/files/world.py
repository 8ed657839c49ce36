"""Georeferences of images: world files, and the scale and tie point of a GeoTIFF."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from atrous.data.files.pillow import open_with_pillow

WORLD_SUFFIX = ".pgw"
"""Of the world file of a PNG."""
_SCALE, _TIE_POINT = 33550, 33922
"""GeoTIFF's tags ModelPixelScale and ModelTiepoint."""


class World(NamedTuple):
    """Coordinates of the centres of pixels: ``x = a·column + b·row + c``, ``y = d·column + e·row + f``."""

    a: float
    d: float
    b: float
    e: float
    c: float
    f: float

    def moved(self, left: int, top: int) -> World:
        """The map of a part of the image whose first pixel is in column ``left`` and row ``top``."""
        x, y = self.a * left + self.b * top + self.c, self.d * left + self.e * top + self.f
        return self._replace(c=x, f=y)

    def text(self) -> str:
        """The six lines of a world file."""
        return "".join(f"{value!r}\n" for value in self)


def world_of(image: Path) -> World | None:
    """The georeference of an image: of a world file beside it, else of its GeoTIFF tags; None if it has none."""
    ending = image.suffix.lower()
    short = f"{ending[:2]}{ending[-1:]}w"  # .tfw, .jgw, .pgw
    for suffix in (short, f"{ending}w", ".wld"):
        file = image.with_suffix(suffix)
        if file.is_file():
            try:
                return World(*(float(line) for line in file.read_text(encoding="ascii").split()[:6]))
            except (TypeError, ValueError):
                return None
    return _of_tags(image) if ending in (".tif", ".tiff") else None


def _of_tags(image: Path) -> World | None:
    try:
        with open_with_pillow(image) as opened:
            tags = getattr(opened, "tag_v2", {})
            scale, tie = tags.get(_SCALE), tags.get(_TIE_POINT)
    except Exception:  # our own decoder may read what Pillow does not; it has no georeference then
        return None
    if not scale or not tie or len(tie) < 6:
        return None
    column, row, x, y = tie[0], tie[1], tie[3], tie[4]
    width, height = float(scale[0]), float(scale[1])  # tie points are at corners of pixels
    return World(width, 0.0, 0.0, -height, x + (0.5 - column) * width, y - (0.5 - row) * height)
