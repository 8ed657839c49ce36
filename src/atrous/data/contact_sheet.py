"""A contact sheet: masks drawn over images, chosen so that every class is shown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.data.dataset import Dataset, Sample
from atrous.viz import Pixels, overlay

SIDE = 320
"""The longer side of an image on the sheet, in pixels."""
COLUMNS = 4
AT_LEAST = 12
"""Images on a sheet, if the dataset has as many; more if classes need them."""
SEEN = 0.01
"""From this share of an image on, a class counts as shown."""
_PAPER, _INK, _GAP, _CAPTION = (255, 255, 255), (32, 33, 36), 12, 20


def choose(pixels: NDArray[np.integer]) -> list[int]:
    """Choose images that show every class that occurs.

    For each class that is not shown by the images chosen so far, the rarest first, the image with the largest share of
    it is added; then images evenly spread over the dataset, up to :data:`AT_LEAST`.

    Args:
        pixels: ``(images, classes)``, how many pixels of each class are in each image.

    Returns:
        Ascending indices of images; the same for the same counts.
    """
    share = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    occurs = (pixels > 0).sum(axis=0)
    chosen: list[int] = []
    for label in np.argsort(occurs, kind="stable"):
        if occurs[label] and not any(share[place, label] >= SEEN for place in chosen):
            best = int(share[:, label].argmax())
            chosen += [best] if best not in chosen else []
    others = [place for place in range(len(pixels)) if place not in chosen]
    missing = min(max(0, AT_LEAST - len(chosen)), len(others))
    chosen += [others[place * len(others) // missing] for place in range(missing)]
    return sorted(chosen)


def contact_sheet(dataset: Dataset, places: list[int]) -> Pixels:
    """Draw images of a dataset in rows, each with its mask drawn over it and its name above.

    Args:
        dataset: the dataset.
        places: indices of the images; at least one.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    cells = [_cell(dataset[place], dataset) for place in places]
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    width = max(sum(cell.width + _GAP for cell in row) for row in rows) + _GAP
    heights = [max(cell.height for cell in row) + _GAP for row in rows]
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), _PAPER)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + _GAP
        top += height
    return np.asarray(sheet)


def _cell(sample: Sample, dataset: Dataset) -> Image.Image:
    height, width = sample.mask.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(sample.shown, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    mask = cv2.resize(sample.mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    drawn = overlay(np.asarray(image, np.uint8), np.asarray(mask, np.uint8), dataset.label_set)
    cell = Image.new("RGB", (max(SIDE, drawn.shape[1]), _CAPTION + drawn.shape[0]), _PAPER)
    ImageDraw.Draw(cell).text((0, _CAPTION / 2), sample.name, _INK, ImageFont.load_default(12), anchor="lm")
    cell.paste(Image.fromarray(drawn), (0, _CAPTION))
    return cell
