"""What a mask stores about its making, in PNG text fields or a TIFF's metadata: an earlier run's results are known by
it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngImageFile

from atrous.data.files.rasters import import_rasterio, open_dataset, rasterio_errors

_SOURCE, _MADE_WITH = "atrous-source", "atrous-made-with"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True)
class Origin:
    """What a mask was made from, and how.

    Args:
        source: the name of the image, and a hash of its path.
        version: size and time of change of the image, as the file system has them.
        made_with: a hash of the model and its settings; empty in masks of programs that stored none.
        beside: endings of the files that were written after the mask.
    """

    source: str
    version: str = ""
    made_with: str = ""
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: Path, made_with: str, beside: tuple[str, ...] = ()) -> Origin:
        """The origin of a mask that is made from an image now.

        Raises:
            OSError: the image is gone.
        """
        now = image.stat()
        return cls(source_of(image), f"{now.st_size}-{now.st_mtime_ns}", made_with, beside)

    def text(self) -> dict[str, str]:
        """As PNG text fields."""
        return {_SOURCE: self.source, _MADE_WITH: " ".join([self.made_with, self.version, *self.beside])}


def source_of(image: Path) -> str:
    """The name of an image, in ASCII, and a hash of its path."""
    path = os.fsencode(os.path.realpath(image))
    return f"{ascii(image.name)[1:-1]} #{blake2b(path, digest_size=8).hexdigest()}"


def read_origin(mask: Path) -> Origin | None:
    """What a file stores about its making; None if it is not a mask written by this package."""
    if not mask.is_file():  # opening a pipe would wait for ever
        return None
    fields = _tiff_fields(mask) if mask.suffix == ".tif" else _png_fields(mask)
    source, made = fields.get(_SOURCE), fields.get(_MADE_WITH)
    if not isinstance(source, str):
        return None
    made_with, version, *beside = made.split(" ") if isinstance(made, str) and " " in made else ("", "")
    return Origin(source, version, made_with, tuple(beside))


def _png_fields(mask: Path) -> dict[Any, Any]:
    try:
        with PngImageFile(mask) as png:  # not Image.open, which refuses or warns of large images
            return png.info
    except (OSError, SyntaxError, ValueError):
        return {}


def _tiff_fields(mask: Path) -> dict[Any, Any]:
    if import_rasterio() is None:
        return {}
    try:
        with open_dataset(mask) as tiff:
            return dict(tiff.tags())
    except rasterio_errors():
        return {}


def is_complete(mask: Path) -> bool:
    """Whether a PNG file has its end; TIFFs are written atomically, and have theirs."""
    if mask.suffix == ".tif":
        return True
    with mask.open("rb") as file:
        file.seek(max(0, mask.stat().st_size - len(_PNG_END)))
        return file.read() == _PNG_END
