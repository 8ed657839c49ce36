"""The result of segmenting an image. Made without torch, so that exported models need none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.exif import Pixels
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.grid import Grids
from atrous.labels import LabelSet, Mask, encode_mask
from atrous.viz import areas, overlay


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


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image and its labels.

    Args:
        labels: uint8 ``(H, W)``, the class of each pixel.
        image: uint8 RGB ``(H, W, 3)``, upright; the first three channels if there are more.
        label_set: names and colours of the classes.
        notes: remarks on how the image was read, such as skipped frames.
        probabilities: class probabilities before any CRF, if ``keep_probabilities=True`` asked for them.
        attention: float32 ``(S, H, W)``, summing to 1: the weight of each of the network's own scales at each pixel, if
            it attends to scales and ran once.
        scales: the factors of these ``S`` scales.

    Example:
        >>> import atrous, numpy as np
        >>> model = atrous.load("deeplabv3plus_lite0_voc")
        >>> result = atrous.predict(model, np.zeros((40, 60, 3), np.uint8))
        >>> result.labels.shape, result.fractions()
        ((40, 60), {...})
        >>> result.save("mask.png")
    """

    labels: Mask
    image: Pixels
    label_set: LabelSet
    notes: tuple[str, ...] = ()
    probabilities: ClassProbabilities | None = None
    attention: NDArray[np.float32] | None = None
    scales: tuple[float, ...] = ()

    def overlay(self, *, alpha: float = 0.55, legend: bool = True, boundaries: bool = True) -> Pixels:
        """Lay the colours over the image: uint8 RGB, as :func:`atrous.viz.overlay`."""
        return overlay(self.image, self.labels, self.label_set, alpha=alpha, legend=legend, boundaries=boundaries)

    def fractions(self) -> dict[str, float]:
        """The fraction of the image that each class present covers, largest first; they sum to 1."""
        return {name: count / self.labels.size for name, count in areas(self.labels, self.label_set).items()}

    def save(self, path: str | Path) -> None:
        """Write the labels atomically as a palette PNG whose values are the classes.

        Raises:
            InputError: the path does not end in ``.png``; other formats would change the labels.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(
                f"{path}: a mask is saved as PNG, since other formats change its values; name it {path.stem}.png"
            )
        write_atomically(path, encode_mask(self.labels, self.label_set))
