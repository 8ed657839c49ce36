"""Reading masks: palette, index and declared-RGB pictures become uint8 labels with 255 for ignored pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.labels import IGNORE, VOID_COLOR, Color, LabelSet, Mask, labels_from_colors

Encoding = Literal["index", "rgb"]
Remap = Mapping[int | Color, int]
"""What stands on disk (a value, or a colour of an RGB mask) and the label it means instead."""


class MaskError(ValueError):
    """A mask that can't be read as labels; the message names the file, what was found and how to mend it."""


def read_mask(path: Path, labels: LabelSet, encoding: Encoding = "index", remap: Remap | None = None) -> Mask:
    """Read a mask as labels.

    Args:
        path: a PNG (or another lossless picture).
        labels: the classes; any other value but 255 is an error.
        encoding: ``index`` (palette and grey pictures: the value is the class) or ``rgb`` (the colour is the class,
            by the label set's colours; VOC's cream is void).
        remap: values or colours on disk that mean another label, for example ``{11: 255}``.

    Returns:
        uint8 ``(H, W)``, values below ``len(labels)`` or 255.

    Raises:
        MaskError: missing, unreadable, a JPEG, a form that was not declared, or values outside the classes.
    """
    if encoding == "rgb":
        return _from_colors(path, labels, remap or {})
    return _from_values(path, labels, remap or {})


def read_values(path: Path) -> Mask:
    """The values of an index mask as they stand on disk, uint8 ``(H, W)``.

    Raises:
        MaskError: missing, unreadable, a JPEG, a coloured picture, or values that are no uint8.
    """
    values, mode = _decode(path)
    if values.ndim != 2:
        raise MaskError(
            f"{path}: a {mode} picture, expected a palette or grey mask whose values are the classes; "
            'if its colours are the classes, say so: encoding = "rgb" and colors = [...] in labels.toml'
        )
    if values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    if low >= 0 and high <= IGNORE and (values == values.astype(np.uint8)).all():
        return values.astype(np.uint8)
    raise MaskError(
        f"{path}: a {mode} picture with values from {low} to {high}, expected whole numbers, classes or {IGNORE}; "
        f"write it again as an 8-bit PNG of class numbers, void as {IGNORE}"
    )


def _from_values(path: Path, labels: LabelSet, remap: Remap) -> Mask:
    values = read_values(path)
    table = np.arange(256, dtype=np.uint8)
    known = (table < len(labels)) | (table == IGNORE)
    for value, label in remap.items():
        table[value], known[value] = label, True
    if cv2.LUT(values, (~known).view(np.uint8)).any():  # OpenCV's look-up is ten times quicker than indexing
        shown = ", ".join(str(value) for value in np.unique(values) if not known[value])
        raise MaskError(
            f"{path}: value(s) {shown} belong to no class; expected 0–{len(labels) - 1} or {IGNORE}. "
            f"Mend the mask; for a folder dataset, labels.toml may name more classes, or say ignore = [{shown}]"
        )
    return np.asarray(cv2.LUT(values, table), np.uint8)


def _from_colors(path: Path, labels: LabelSet, remap: Remap) -> Mask:
    table = {VOID_COLOR: IGNORE} | {color: label for label, color in enumerate(labels.colors)}
    table |= {color: label for color, label in remap.items() if isinstance(color, tuple)}
    mask, strangers = labels_from_colors(_decode(path, "RGB")[0], table)
    if strangers:
        shown = ", ".join(str(list(color)) for color in sorted(strangers)[:5])
        raise MaskError(
            f"{path}: {len(strangers)} colour(s) that belong to no class (first: {shown}); in labels.toml list them "
            "under colors, or under ignore"
        )
    return mask


def _decode(path: Path, mode: str | None = None) -> tuple[NDArray[Any], str]:
    """The pixels of a lossless picture, and its mode on disk."""
    try:
        with Image.open(path) as picture:
            file_format, found = picture.format, picture.mode
            pixels = np.asarray(picture.convert(mode) if mode else picture)
    except FileNotFoundError as error:
        raise MaskError(f"{path}: there is no such mask") from error
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise MaskError(f"{path}: not a readable picture ({error}); expected a PNG mask, write it again") from error
    if file_format in ("JPEG", "MPO"):
        raise MaskError(f"{path}: a JPEG picture, which changes labels along every edge; export the mask again as PNG")
    return pixels, found
