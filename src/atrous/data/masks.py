"""Reading masks: palette, index and declared-RGB pictures become uint8 labels with 255 for ignored pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from atrous.labels import IGNORE, LabelSet, Mask, labels_from_colors

Encoding = Literal["index", "rgb"]


class MaskError(ValueError):
    """A mask that can't be read as labels; the message names the file, what was found and how to mend it."""


def read_mask(path: Path, labels: LabelSet, encoding: Encoding = "index", remap: Mapping[int, int] | None = None) -> Mask:
    """Read a mask as labels.

    Args:
        path: a PNG (or another lossless picture).
        labels: the classes; any other value but 255 is an error.
        encoding: ``index`` (palette and grey pictures: the value is the class) or ``rgb`` (the colour is the class, by the label set's colours).
        remap: values on disk that mean another label, for example ``{11: 255}``.

    Returns:
        uint8 ``(H, W)``, values below ``len(labels)`` or 255.

    Raises:
        MaskError: unreadable, a form that was not declared, or values outside the classes.
    """
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            raw = np.asarray(picture.convert("RGB") if encoding == "rgb" else picture)
    except FileNotFoundError as error:
        raise MaskError(f"{path}: there is no such mask") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise MaskError(f"{path}: not a readable picture ({error}); expected a PNG mask, write it again") from error
    if encoding == "rgb":
        mask, strangers = labels_from_colors(raw, labels.colors)
        if strangers - {(224, 224, 192)}:  # VOC's own colour for void
            shown = ", ".join(map(str, sorted(strangers)[:5]))
            raise MaskError(f"{path}: {len(strangers)} colour(s) that belong to no class (first: {shown}); list them under colors in labels.toml")
        return mask
    if raw.ndim != 2:
        raise MaskError(
            f"{path}: a {mode} picture, expected a palette or grey mask whose values are the classes; if its colours are the classes, "
            'say so: encoding = "rgb" and colors = [...] in labels.toml'
        )
    mask = raw.astype(np.uint8)
    if raw.dtype != np.uint8 and (raw != mask).any():
        raise MaskError(f"{path}: values up to {int(raw.max())}, but a mask holds classes below {len(labels)} or {IGNORE}")
    table = np.full(256, 254, np.uint8)
    table[: len(labels)] = np.arange(len(labels))
    table[IGNORE] = IGNORE
    for value, label in (remap or {}).items():
        table[value] = label
    known = table != 254
    known[254] = known[254] or len(labels) > 254
    present = np.bincount(mask.ravel(), minlength=256).nonzero()[0]
    strange = present[~known[present]]
    if len(strange):
        shown = ", ".join(map(str, strange[:10]))
        raise MaskError(
            f"{path}: value(s) {shown} belong to no class; expected 0–{len(labels) - 1} or {IGNORE}. "
            f"Give the classes in labels.toml, or map the value: ignore = [{strange[0]}]"
        )
    return table[mask]
