"""Sheets of validation images: ground truth and prediction side by side, with captions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atrous.data.dataset import Dataset
from atrous.inference.predict import predict
from atrous.labels import Mask, ignored
from atrous.models.base import SegmentationModel
from atrous.viz import Pixels, overlay

SHEET_WIDTH = 480
"""Width of an image on the sheet, in pixels."""
GAP = 8
CAPTION = 22
"""Height of a caption, in pixels."""
_INK = (32, 33, 36)


def sample_sheet(model: SegmentationModel, dataset: Dataset, count: int, predicted_by: str) -> Pixels:
    """Draw the first images of a dataset, one a row: the ground truth on the left, the model's labels on the right.

    Args:
        model: what predicts.
        dataset: the validation data.
        count: number of images.
        predicted_by: the right caption, such as "prediction at step 100".

    Returns:
        RGB uint8 ``(H, W, 3)``; above each image its caption: file name and pixel accuracy.
    """
    rows = []
    for index in range(min(count, len(dataset))):
        sample = dataset[index]
        predicted = predict(model, sample.image).labels
        captions = f"{Path(sample.name).name}: ground truth", f"{predicted_by}{_accuracy(sample.mask, predicted)}"
        pair = [_fitted(overlay(sample.shown, mask, dataset.label_set)) for mask in (sample.mask, predicted)]
        height = max(len(image) for image in pair) + GAP
        panels = zip(captions, pair, strict=True)
        rows.append(np.hstack([np.vstack([_caption(text), _filled(image, height)]) for text, image in panels]))
    return np.vstack(rows)


def _accuracy(ground_truth: Mask, predicted: Mask) -> str:
    labelled = ~ignored(ground_truth)
    if not labelled.any():
        return ""
    return f", {(ground_truth == predicted)[labelled].mean():.0%} of the pixels correct"


def _caption(text: str) -> Pixels:
    strip = Image.new("RGB", (SHEET_WIDTH + GAP, CAPTION), (255, 255, 255))
    font = ImageFont.load_default(13)
    while len(text) > 1 and font.getlength(text) > SHEET_WIDTH:
        text = text[: len(text) // 2 - 2] + "…" + text[len(text) // 2 + 2 :]
    ImageDraw.Draw(strip).text((0, CAPTION / 2), text, _INK, font, anchor="lm")
    return np.asarray(strip)


def _fitted(image: Pixels) -> Pixels:
    height = max(1, round(len(image) * SHEET_WIDTH / image.shape[1]))
    return np.asarray(cv2.resize(image, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def _filled(image: Pixels, height: int) -> Pixels:
    return np.pad(image, ((0, height - len(image)), (0, GAP), (0, 0)), constant_values=255)
