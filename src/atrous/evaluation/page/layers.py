"""The images of a page: a photo, and layers of labels and errors over it, as data URIs."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.labels import VOID_COLOR, LabelSet, Mask, ignored
from atrous.viz import Pixels, lightened

SIDES = (560, 420, 320, 240, 160)
"""The longer side of an image, the first with which all of them fit into a page."""
ROOM = 5_500_000
"""Bytes for all images, so that a page stays below 8 MB."""
MISSED, ALARM, CONFUSED, UNKNOWN = 1, 2, 3, 4
ERRORS = {  # Okabe and Ito's colours, which colour-blind people can tell apart
    MISSED: ("missed: background instead of a class", (0, 114, 178)),
    ALARM: ("false alarm: a class instead of background", (230, 159, 0)),
    CONFUSED: ("another class", (204, 121, 167)),
    UNKNOWN: ("ignored", (128, 128, 128)),
}
_OPAQUE, _FAINT = 205, 120


@dataclass(frozen=True, eq=False)
class Case:
    """An image to show.

    Args:
        name: of the image.
        caption: what there is to say of it.
        image: uint8 RGB ``(H, W, 3)``.
        masks: uint8 ``(H, W)`` by the name of their layer, ``truth`` among them.
        errors: the layer whose errors are shown as the layer ``errors``; none without.
        box: left, top, right and bottom of a region to point at, in pixels.
    """

    name: str
    caption: str
    image: Pixels
    masks: Mapping[str, Mask]
    errors: str = ""
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Shown:
    """A case as the page shows it: sizes in pixels, the photo and layers as data URIs, and the classes in it."""

    name: str
    caption: str
    width: int
    height: int
    photo: str
    layers: dict[str, str]
    classes: list[tuple[str, str]]
    box: str = ""


@dataclass
class _Encoded:
    shown: list[Shown] = field(default_factory=list)
    size: int = 0


def encode(cases: Sequence[Case], label_set: LabelSet) -> list[Shown]:
    """Encode images for a page, as large as fits into :data:`ROOM`."""
    found = _Encoded()
    for side in SIDES:
        found = _Encoded()
        for case in cases:
            shown = _shown(case, label_set, side)
            found.shown.append(shown)
            found.size += len(shown.photo) + sum(map(len, shown.layers.values()))
            if found.size > ROOM:
                break
        if found.size <= ROOM:
            break
    return found.shown


def error_map(ground_truth: Mask, prediction: Mask, label_set: LabelSet) -> Mask:
    """The kind of error of each pixel, a key of :data:`ERRORS`, 0 where it is correct: uint8 ``(H, W)``."""
    kinds = np.where(ground_truth == prediction, 0, CONFUSED).astype(np.uint8)
    if label_set.names[0] == "background":
        kinds[(ground_truth != prediction) & (prediction == 0)] = MISSED
        kinds[(ground_truth == 0) & (prediction != 0)] = ALARM
    kinds[ignored(ground_truth)] = UNKNOWN
    return kinds


def css_color(color: tuple[int, int, int]) -> str:
    """A colour as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _shown(case: Case, label_set: LabelSet, side: int) -> Shown:
    height, width = case.image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.asarray(cv2.resize(case.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    masks = {
        name: np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), mask.dtype)
        for name, mask in case.masks.items()
    }
    bright = lightened(label_set)
    layers = {name: _labels_png(mask, bright) for name, mask in masks.items()}
    if case.errors:
        layers["errors"] = _errors_png(error_map(masks["truth"], masks[case.errors], label_set))
    present = np.unique(np.concatenate([np.unique(mask) for mask in masks.values()]))
    classes = [(bright.names[c], css_color(bright.colors[c])) for c in present.tolist() if c < len(bright)]
    return Shown(
        case.name, case.caption, *size, _uri("jpeg", _jpeg(image)), layers, classes, _box_style(case.box, width, height)
    )


def _box_style(box: tuple[int, int, int, int] | None, width: int, height: int) -> str:
    if box is None:
        return ""
    left, top, right, bottom = box
    return (
        f"left:{100 * left / width:.2f}%;top:{100 * top / height:.2f}%;"
        f"width:{100 * (right - left) / width:.2f}%;height:{100 * (bottom - top) / height:.2f}%"
    )


def _labels_png(mask: Mask, label_set: LabelSet) -> str:
    """Labels in half-transparent colours with light outlines; black classes are not painted."""
    ignore = label_set.ignore
    colors = np.zeros((ignore + 1, 4), np.uint8)
    for label, color in enumerate(label_set.colors):
        colors[label] = (*color, 0 if color == (0, 0, 0) else 150)
    colors[ignore] = (*VOID_COLOR, _FAINT)
    drawn = mask.copy()
    if len(label_set) < ignore:  # the value before is free for outlines
        edges = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
        drawn[edges], colors[ignore - 1] = ignore - 1, (255, 255, 255, _OPAQUE)
    return _palette_png(drawn, colors)


def _errors_png(kinds: Mask) -> str:
    colors = np.zeros((256, 4), np.uint8)
    for kind, (_, color) in ERRORS.items():
        colors[kind] = (*color, _FAINT if kind == UNKNOWN else _OPAQUE)
    return _palette_png(kinds, colors)


def _palette_png(mask: Mask, colors: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    if mask.dtype != np.uint8:
        Image.fromarray(colors[mask]).save(buffer, "PNG", optimize=True)
        return _uri("png", buffer.getvalue())
    image = Image.fromarray(mask)
    image.putpalette(colors[:, :3].tobytes())
    image.save(buffer, "PNG", transparency=colors[:, 3].tobytes(), optimize=True)
    return _uri("png", buffer.getvalue())


def _jpeg(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
