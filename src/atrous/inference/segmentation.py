"""The result of segmenting an image. Made without torch, so that exported models need none."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.exif import Pixels
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.grid import PIXELS, Grids, resample
from atrous.labels import LabelSet, Mask, encode_mask
from atrous.viz import areas, overlay, percent

NOTEBOOK_SIDE = 1024
"""Longest side of the overlay that a notebook shows."""
SHOWN_CLASSES = 4
"""How many classes a segmentation's one-line description names."""


@dataclass(frozen=True, eq=False)
class ClassProbabilities:
    """Class probabilities at the resolution of the network.

    Args:
        values: float16 ``(C, h, w)``, 0 to 1, summing to 1 over the classes.
        grid: position *i* sits at pixel ``grid.stride * i + grid.offset`` of the image, in rows and columns alike; two
            grids where they differ.
    """

    values: NDArray[np.float16]
    grid: Grids


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """An image and its labels. A notebook shows it as an overlay with a legend.

    Args:
        labels: uint8 ``(H, W)``, the class of each pixel; uint16 for more than 255 classes.
        image: uint8 RGB ``(H, W, 3)``, upright; the first three channels if there are more.
        label_set: names and colours of the classes.
        notes: remarks on how the image was read, such as skipped frames.
        class_probabilities: before any CRF, with their grid, if ``keep_probabilities=True`` asked for them;
            :meth:`probabilities` is the array.
        attention: float32 ``(S, H, W)``, summing to 1: the weight of each of the network's own scales at each pixel, if
            it attends to scales and ran once.
        scales: the factors of these ``S`` scales.

    Example:
        >>> import atrous, numpy as np
        >>> model = atrous.load("deeplabv3plus_lite0_voc")
        >>> result = atrous.predict(model, np.zeros((40, 60, 3), np.uint8))
        >>> result
        Segmentation(40×60: background 100%)
        >>> result.labels.shape, result.fractions()
        ((40, 60), {'background': 1.0})
        >>> result.save("mask.png")
    """

    labels: Mask
    image: Pixels
    label_set: LabelSet
    notes: tuple[str, ...] = ()
    class_probabilities: ClassProbabilities | None = None
    attention: NDArray[np.float32] | None = None
    scales: tuple[float, ...] = ()

    def overlay(self, *, alpha: float = 0.55, legend: bool = True, boundaries: bool = True) -> Pixels:
        """Lay the colours over the image: uint8 RGB, as :func:`atrous.viz.overlay`."""
        return overlay(self.image, self.labels, self.label_set, alpha=alpha, legend=legend, boundaries=boundaries)

    def fractions(self) -> dict[str, float]:
        """The fraction of the image that each class present covers, largest first; they sum to 1."""
        return {name: count / self.labels.size for name, count in areas(self.labels, self.label_set).items()}

    def probabilities(self, *, full_size: bool = False) -> NDArray[np.float32]:
        """The probability of each class before any CRF, float32, 0 to 1.

        Args:
            full_size: interpolate them bilinearly to the image's own size: ``(C, H, W)``, at 4 bytes for each class
                and pixel. Otherwise they are ``(C, h, w)`` at the resolution of the network; ``class_probabilities``
                has the grid that they sit on.

        Raises:
            InputError: they were not kept.
        """
        kept = self.class_probabilities
        if kept is None:
            raise InputError("the class probabilities were not kept; predict with keep_probabilities=True")
        values = kept.values.astype(np.float32)
        if not full_size or (kept.grid == PIXELS and values.shape[1:] == self.labels.shape):
            return values
        import torch

        height, width = self.labels.shape
        full = resample(torch.from_numpy(values)[None], kept.grid, PIXELS, (height, width))
        return full[0].numpy()

    def scaled(self, factor: float) -> Segmentation:
        """Shrink image and labels, for drawing."""
        height, width = self.labels.shape
        size = max(1, round(width * factor)), max(1, round(height * factor))
        image = np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        labels = np.asarray(cv2.resize(self.labels, size, interpolation=cv2.INTER_NEAREST_EXACT), self.labels.dtype)
        return replace(self, image=image, labels=labels)

    def save(self, target: str | Path | BinaryIO) -> None:
        """Write the labels as a palette PNG whose values are the classes.

        Args:
            target: a path ending in ``.png``, written atomically, or anything with ``write``, such as ``io.BytesIO()``.

        Raises:
            InputError: the path does not end in ``.png``; other formats would change the labels.
        """
        if not isinstance(target, str | Path):
            target.write(encode_mask(self.labels, self.label_set))
            return
        path = Path(target)
        if path.suffix.lower() != ".png":
            raise InputError(
                f"{path}: a mask is saved as PNG, since other formats change its values; name it {path.stem}.png"
            )
        write_atomically(path, encode_mask(self.labels, self.label_set))

    def __repr__(self) -> str:
        height, width = self.labels.shape
        present = [f"{name} {percent(fraction)}" for name, fraction in self.fractions().items()]
        more = [f"{len(present) - SHOWN_CLASSES} more"] if len(present) > SHOWN_CLASSES else []
        return f"Segmentation({height}×{width}: {', '.join(present[:SHOWN_CLASSES] + more) or 'all ignored'})"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay with its legend, at most about 1024 pixels a side."""
        factor = NOTEBOOK_SIDE / max(self.labels.shape)
        buffer = io.BytesIO()
        Image.fromarray((self if factor >= 1 else self.scaled(factor)).overlay()).save(buffer, "PNG")
        return buffer.getvalue()
