"""What the figures share: the image, its labels by the bundled model, and a sheet of panels as a JPEG."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

import atrous
from atrous.files import write_atomically
from atrous.inference.demo import find_demo_images
from atrous.labels import Mask
from atrous.models.base import SegmentationModel
from atrous.viz import Pixels, overlay

IMAGES = Path(__file__).resolve().parents[1] / "images"
MODEL = "deeplabv3plus_lite0_voc"
PERSON = 15  # in VOC
LARGEST = 150_000
"""Bytes of a figure."""
INK = "#d2232a"
OUTSIDE = (
    (150, 70), (200, 25), (260, 10), (330, 30), (378, 85), (385, 190), (375, 300), (400, 330), (500, 380), (511, 430),
    (511, 511), (14, 511), (14, 400), (60, 362), (150, 330), (180, 290), (160, 230), (150, 150),
)  # fmt: skip
INSIDE = (
    (180, 90), (210, 50), (260, 35), (310, 55), (350, 100), (350, 230), (330, 290), (340, 340), (440, 390), (480, 440),
    (480, 511), (20, 511), (30, 400), (160, 350), (210, 300), (180, 220), (175, 140),
)  # fmt: skip
CROWD = (
    (280, -30, 384),
    (140, 235, 384),
    (70, 385, 384),
    (36, 462, 384),
    (70, 300, 170),
    (36, 400, 170),
    (20, 450, 170),
)
Panel = tuple[str, Pixels | Callable[[Axes], None]]
"""A title, and an image or what draws into the axes."""


def bundled() -> SegmentationModel:
    """The bundled model, in eval mode."""
    model: SegmentationModel = atrous.load(MODEL)
    return model


def portrait(side: int = 512) -> Pixels:
    """The upper square of the demo's image, uint8 ``(side, side, 3)``."""
    image = np.asarray(plt.imread(find_demo_images()[0]), np.uint8)
    square = image[: image.shape[1]]
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def outline(image: Pixels) -> Mask:
    """The person in the portrait, VOC's label 15: GrabCut between two polygons drawn by hand."""
    scale = len(image) / 512
    state = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    for polygon, meaning in ((OUTSIDE, cv2.GC_PR_FGD), (INSIDE, cv2.GC_FGD)):
        cv2.fillPoly(state, [np.round(np.array(polygon) * scale).astype(np.int32)], meaning)
    cv2.setRNGSeed(0)
    colours = np.ascontiguousarray(image[..., ::-1])
    cv2.grabCut(colours, state, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return np.asarray(PERSON * np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD)), np.uint8)


def crowd(people: Sequence[tuple[int, int, int]], height: int = 384, width: int = 512) -> tuple[Pixels, Mask]:
    """The person several times before a plain sky.

    Args:
        people: the size in pixels, the left and the lower edge of each; later ones stand in front.
        height: of the image.
        width: of the image.

    Returns:
        The image and its mask.
    """
    person, truth = _person()
    sky = np.array((96, 134, 196)) + np.linspace(-18, 18, height)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    image, mask = (sky + noise).clip(0, 255).astype(np.uint8), np.zeros((height, width), np.uint8)
    for size, left, bottom in people:
        shape, top = (size, size), bottom - size
        small = cv2.resize(person, shape, interpolation=cv2.INTER_AREA)
        inside = cv2.resize(truth, shape, interpolation=cv2.INTER_AREA) > PERSON // 2
        rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(left + size, width))
        part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        image[rows, columns][inside[part]] = small[part][inside[part]]
        mask[rows, columns][inside[part]] = PERSON
    return image, mask


@functools.cache
def _person() -> tuple[Pixels, Mask]:
    image = portrait()
    return image, outline(image)


def as_input(model: SegmentationModel, image: Pixels) -> Tensor:
    """The input of a network, ``(1, 3, H, W)``."""
    return model.preprocess(torch.from_numpy(image).permute(2, 0, 1)[None])


def painted(image: Pixels, mask: Mask) -> Pixels:
    """Labels of VOC over an image."""
    return overlay(image, mask, bundled().label_set, legend=False)


def agreement(mask: Mask, truth: Mask) -> float:
    """IoU of the persons of two masks, in percent."""
    ours, theirs = mask == PERSON, truth == PERSON
    return float(100 * (ours & theirs).sum() / max(1, (ours | theirs).sum()))


def write(name: str, rows: Sequence[Sequence[Panel]], *, width: float = 11.0, height: float | None = None) -> Path:
    """Draw rows of panels and write ``docs/images/NAME.jpg``.

    Args:
        name: of the figure.
        rows: of panels.
        width: in inches, at 92 dots each.
        height: in inches; what square panels need when None.

    Raises:
        SystemExit: the file would be larger than :data:`LARGEST`.
    """
    columns = max(map(len, rows))
    height = height or len(rows) * (width / columns + 0.35)
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 9}):
        figure, axes = plt.subplots(len(rows), columns, figsize=(width, height), squeeze=False, layout="constrained")
        for row, panels in zip(axes, rows, strict=True):
            for place, (title, content) in zip(row, panels, strict=False):
                place.set_title(title)
                place.axis("off")
                if callable(content):
                    content(place)
                else:
                    place.imshow(content, interpolation="nearest")
            for place in row[len(panels) :]:
                place.axis("off")
        memory = io.BytesIO()
        figure.savefig(memory, format="jpg", dpi=92, pil_kwargs={"quality": 80, "optimize": True})
        plt.close(figure)
    if memory.tell() > LARGEST:
        raise SystemExit(f"figure {name} has {memory.tell():,} bytes, more than {LARGEST:,}: draw it smaller")
    path = IMAGES / f"{name}.jpg"
    write_atomically(path, memory.getvalue())
    return path


def grey(image: Pixels, strength: float = 0.55) -> Pixels:
    """The image in light grey, for drawing on."""
    flat = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    return np.asarray(255 - strength * (255 - flat), np.uint8)


def zoomed(array: NDArray[np.uint8], top: int, left: int, side: int) -> NDArray[np.uint8]:
    """A square part of an image or a mask."""
    return array[top : top + side, left : left + side]
