"""Drawing results: class colours over an image, region outlines, a legend beside the image, and attention heat maps."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.errors import InputError
from atrous.labels import LabelSet, Mask

Pixels = NDArray[np.uint8]

_PAPER, _INK, _FAINT, _LINE = (255, 255, 255), (32, 33, 36), (120, 124, 130), (214, 217, 222)
_DARK = 192  # label sets without a brighter channel, as VOC's, are lightened
_ROWS_AT_ONCE = 1 << 24  # pixels; counting needs eight bytes each


def areas(mask: Mask, label_set: LabelSet) -> dict[str, int]:
    """Count the pixels of each class that is present, largest first; ignored pixels are not counted.

    Args:
        mask: ``(H, W)``.
        label_set: the classes of the mask.

    Raises:
        InputError: the mask contains a label that is neither a class nor ignored.
    """
    rows = max(1, _ROWS_AT_ONCE // max(1, mask.shape[1]))
    counts = np.zeros(np.iinfo(mask.dtype).max + 1, np.int64)
    for start in range(0, len(mask), rows):
        counts += np.bincount(mask[start : start + rows].reshape(-1), minlength=len(counts))
    unknown = [label for label in np.flatnonzero(counts).tolist() if len(label_set) <= label != label_set.ignore]
    if unknown:
        raise InputError(
            f"the mask contains the labels {unknown}, but the label set has the classes 0 to {len(label_set) - 1} "
            f"(and {label_set.ignore} for ignored pixels); pass the label set the mask was made with"
        )
    order = np.argsort(-counts[: len(label_set)], kind="stable").tolist()
    return {label_set.names[label]: int(counts[label]) for label in order if counts[label]}


def percent(fraction: float) -> str:
    """Format a fraction, 0 to 1, in whole percent; between 0 and 1 % it is "<1%", between 99 and 100 % ">99%"."""
    if 0 < fraction < 0.01:
        return "<1%"
    return ">99%" if 0.99 < fraction < 1 else f"{fraction:.0%}"


def lightened(label_set: LabelSet) -> LabelSet:
    """The label set in colours that can be seen over an image: dark palettes, as VOC's, are lightened.

    Black stays black, and colours that differ stay different. This is for viewing only: masks keep their palette.
    """
    if max(map(max, label_set.colors)) > _DARK:
        return label_set
    table = [round(math.sqrt(255 * part)) for part in range(256)]
    return replace(label_set, colors=tuple((table[r], table[g], table[b]) for r, g, b in label_set.colors))


def overlay(
    image: Pixels, mask: Mask, label_set: LabelSet, *, alpha: float = 0.55, legend: bool = True, boundaries: bool = True
) -> Pixels:
    """Blend class colours over an image, outline the regions, and add a legend below.

    Ignored pixels and classes whose colour is black (VOC's background) are not painted, and dark palettes are
    :func:`lightened`. The legend covers nothing: the image grows downwards, and sideways only if it is narrower than a
    legend entry.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: ``(H, W)``; 255 is ignored (65535 for more than 255 classes).
        label_set: the classes of the mask.
        alpha: opacity of the colours, 0 to 1.
        legend: add the colour, name and fraction of each class present, largest first.
        boundaries: draw light lines between regions, 1/250 of the shorter side wide, at least 2 pixels.

    Returns:
        uint8 RGB ``(H, W, 3)``, or with a legend ``(H + legend height, max(W, legend width), 3)``.

    Raises:
        InputError: image and mask differ in size, or the mask contains a label that is not a class.
    """
    _check(image, mask)
    label_set = lightened(label_set)
    painted = _paint(image, mask, label_set, alpha)
    if boundaries:
        _outline(painted, mask)
    if not legend:
        return painted
    return _above(painted, _legend(mask, label_set, painted.shape[1], _text_size(*mask.shape)))


def side_by_side(image: Pixels, mask: Mask, label_set: LabelSet) -> Pixels:
    """Draw image, labels and overlay side by side with captions, above one legend.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: ``(H, W)``.
        label_set: the classes of the mask.

    Returns:
        uint8 RGB: three images and margins wide; an image, a caption and the legend high.

    Raises:
        InputError: image and mask differ in size, or the mask contains a label that is not a class.
    """
    _check(image, mask)
    label_set = lightened(label_set)
    overlaid = overlay(image, mask, label_set, legend=False)
    return _panels(
        {"image": image, "labels": label_set.colorize(mask), "overlay": overlaid}, mask, label_set, columns=3
    )


def heat_map(image: Pixels, weights: NDArray[np.float32], *, alpha: float = 0.65) -> Pixels:
    """Blend weights over an image as a heat map: dark blue for 0, dark red for 1.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        weights: floating ``(H, W)``, 0 to 1.
        alpha: opacity of the heat map, 0 to 1.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    levels = np.clip(weights * 255, 0, 255).round().astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB
    )  # so that only the heat map has colour
    return np.asarray(cv2.addWeighted(grey, 1 - alpha, heat, alpha, 0), np.uint8)


def attention_figure(
    image: Pixels, mask: Mask, label_set: LabelSet, weights: NDArray[np.float32], scales: Sequence[float]
) -> Pixels:
    """Draw image, labels and the weight of each scale side by side with captions, above the legend of the labels.

    Images at least twice as wide as high are stacked instead (:func:`panel_columns`).

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: ``(H, W)``.
        label_set: the classes of the mask.
        weights: floating ``(S, H, W)``, 0 to 1.
        scales: the factor of each scale.

    Returns:
        uint8 RGB.

    Raises:
        InputError: image and mask differ in size, or the mask contains a label that is not a class.
    """
    _check(image, mask)
    label_set = lightened(label_set)
    panels = {"image": image, "labels": overlay(image, mask, label_set, legend=False)}
    for scale, weight in zip(scales, weights, strict=True):
        panels[f"scale {scale:g}: weight {weight.mean():.2f}"] = heat_map(image, weight)
    return _panels(panels, mask, label_set, panel_columns(len(panels), mask.shape[0], mask.shape[1]))


def panel_columns(count: int, height: int, width: int) -> int:
    """How many of ``count`` panels :func:`attention_figure` puts side by side: all of them, or one."""
    return 1 if width >= 2 * height else count


def _panels(panels: Mapping[str, Pixels], mask: Mask, label_set: LabelSet, columns: int) -> Pixels:
    """Draw panels of the mask's size in rows of ``columns`` with captions, above a legend."""
    height, width = mask.shape
    text = _text_size(height, width)
    font, gap, caption = _font(text), text, round(1.9 * text)
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (caption + height)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (title, panel) in enumerate(panels.items()):
        row, column = divmod(place, columns)
        left, top = gap + column * (width + gap), row * (caption + height)
        sheet.paste(Image.fromarray(panel), (left, top + caption))
        draw.text((left, top + caption / 2), title, _FAINT, font, anchor="lm")
    return _above(np.asarray(sheet), _legend(mask, label_set, sheet.width, text))


def _check(image: Pixels, mask: Mask) -> None:
    if image.shape != (*mask.shape, 3):
        raise InputError(f"image {image.shape} and mask {mask.shape}; expected (H, W, 3) and (H, W) of the same size")


def _paint(image: Pixels, mask: Mask, label_set: LabelSet, alpha: float) -> Pixels:
    mixed = cv2.addWeighted(image, 1 - alpha, label_set.colorize(mask), alpha, 0)
    bare = np.zeros(label_set.ignore + 1, np.uint8)
    bare[label_set.ignore] = 1
    bare[[label for label, color in enumerate(label_set.colors) if color == (0, 0, 0)]] = 1
    cv2.copyTo(image, cv2.LUT(mask, bare) if mask.dtype == np.uint8 else bare[mask], mixed)
    return np.asarray(mixed, np.uint8)


def _outline(image: Pixels, mask: Mask) -> None:
    width = max(2, round(min(mask.shape) / 250))
    edges = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((width, width), np.uint8)) > 0
    image[edges] = (image[edges] * 0.3 + 255 * 0.7).astype(np.uint8)


def _text_size(height: int, width: int) -> int:
    """1/32 of the mean side; at least 11 pixels, the smallest legible size."""
    return max(11, round((height + width) / 2 / 32))


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class _Entry:
    name: str
    color: tuple[int, int, int]
    fraction: str
    width: float


def _legend(mask: Mask, label_set: LabelSet, width: int, text: int) -> Image.Image:
    """Draw the classes present on a white strip, at least ``width`` wide, in as many lines as they need."""
    font, swatch, gap, line = _font(text), text, round(0.45 * text), round(1.75 * text)
    margin, between = text, round(1.5 * text)
    counts = areas(mask, label_set)
    entries = []
    for name, count in counts.items():
        fraction = percent(count / mask.size)
        wide = swatch + 2 * gap + font.getlength(name) + font.getlength(fraction)
        entries.append(_Entry(name, label_set.colors[label_set.names.index(name)], fraction, wide))
    width = max([width, *(round(entry.width) + 2 * margin for entry in entries)])
    lines = _lines(entries, width - 2 * margin, between)
    strip = Image.new("RGB", (width, len(lines) * line + margin), _PAPER)
    draw = ImageDraw.Draw(strip)
    for row, entries_of_row in enumerate(lines):
        x, y = float(margin), margin / 2 + (row + 0.5) * line
        for entry in entries_of_row:
            box = (x, y - swatch / 2, x + swatch, y + swatch / 2)
            bare = entry.color == (0, 0, 0)
            draw.rounded_rectangle(box, swatch / 5, _PAPER if bare else entry.color, _LINE, max(1, text // 12))
            after = x + swatch + gap
            draw.text((after, y), entry.name, _INK, font, anchor="lm")
            draw.text((after + font.getlength(entry.name) + gap, y), entry.fraction, _FAINT, font, anchor="lm")
            x += entry.width + between
    return strip


def _lines(entries: list[_Entry], width: float, between: float) -> list[list[_Entry]]:
    lines: list[list[_Entry]] = []
    used = 0.0
    for entry in entries:
        if not lines or used + between + entry.width > width:
            lines.append([entry])
            used = entry.width
        else:
            lines[-1].append(entry)
            used += between + entry.width
    return lines


def _above(image: Pixels, strip: Image.Image) -> Pixels:
    height, width = image.shape[:2]
    sheet = np.full((height + strip.height, max(width, strip.width), 3), _PAPER, np.uint8)
    left = (sheet.shape[1] - width) // 2
    sheet[:height, left : left + width] = image
    sheet[height:] = np.asarray(strip)
    return sheet


def encode_jpeg(pixels: Pixels) -> bytes:
    """Encode an image, uint8 RGB ``(H, W, 3)``, as a JPEG; without chroma subsampling, so that outlines stay crisp."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()
