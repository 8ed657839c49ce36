"""Predictions of a study's rows side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from atrous.data.files.images import open_image
from atrous.files import write_atomically
from atrous.inference.demo import find_demo_images
from atrous.inference.predict import predict
from atrous.labels import LabelSet, Mask
from atrous.models import SegmentationModel
from atrous.viz import encode_jpeg, overlay
from studies.results import RESULTS, ROOT
from studies.rows import evaluated_on, load_network
from studies.study import Data, Study, evaluation_file, recipe_for

IMAGES = 6
"""How many images of a split are shown."""
WIDTH = 320
"""Width of the sample images, in pixels."""


def side_by_side(image: np.ndarray, masks: Sequence[Mask], label_set: LabelSet) -> np.ndarray:
    """An image ``(H, W, 3)`` and overlays of masks ``(H, W)`` on it, in one row."""
    return np.concatenate([image, *(overlay(image, mask, label_set, legend=False) for mask in masks)], axis=1)


def load_networks(study: Study, data: Data) -> list[SegmentationModel]:
    """The networks of all rows that were evaluated here."""
    rows = [row for row in study.rows if evaluation_file(study, data, row.name).exists()]
    return [load_network(study, data, row) for row in rows]


def show_split(study: Study, data: Data) -> None:
    """Write image, ground truth and each row's labels side by side, for some images spread over the split."""
    models = load_networks(study, data)
    if not models:
        return
    dataset = evaluated_on(recipe_for(data, study.rows[0]))
    folder = ROOT / "runs" / "studies" / study.name / data.name / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for index in np.linspace(0, len(dataset) - 1, IMAGES).astype(int):
        sample = dataset[int(index)]
        masks = [sample.mask, *(predict(model, sample.image).labels for model in models)]
        Image.fromarray(side_by_side(sample.image, masks, dataset.label_set)).save(folder / f"{index:04d}.png")


def show_samples(study: Study, data: Data) -> None:
    """Write each row's labels for images of installed packages, which may be shown anywhere, as one JPEG."""
    models = load_networks(study, data)
    if not models:
        return
    sheets = []
    for file in find_demo_images():
        image = open_image(file).pixels
        image = cv2.resize(image, (WIDTH, round(image.shape[0] * WIDTH / image.shape[1])), interpolation=cv2.INTER_AREA)
        sheets.append(side_by_side(image, [predict(model, image).labels for model in models], models[0].label_set))
    target = RESULTS / "studies" / f"{study.name}_{data.name}.jpg"
    write_atomically(target, encode_jpeg(np.concatenate(sheets, axis=0)))
