"""Augmentation, in the type of the image: image and masks are scaled, cropped and mirrored together in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Sample
from atrous.labels import Mask, ignore_of

Augment = Callable[[Sample, np.random.Generator], Sample]
"""Makes of a sample, with random numbers, the one that is trained on; :class:`Augmentation` is the usual one."""


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip and colour, as DeepLab is trained; pixels outside the image are ignored.

    Args:
        crop: side of the square result in pixels; 32k + 1 suits DeepLab. None for whole images, each of its own size.
        scale: smallest and largest scale factor, drawn uniformly.
        scale_set: scale factors to draw from instead.
        flip: mirror half of the images.
        brightness, contrast, saturation: largest change as a share; 0 leaves colours alone.
        hue: largest rotation in degrees.
        fill: value of padding, one per channel: the mean of the network's images, 0–255 if these are uint8.
        colored: whether the first three channels are red, green and blue; only they are changed in colour.
    """

    crop: int | None = 513
    scale: tuple[float, float] = (0.5, 2.0)
    scale_set: Sequence[float] = ()
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    fill: tuple[float, ...] = (123.675, 116.28, 103.53)
    colored: bool = True

    def __call__(self, sample: Sample, random: np.random.Generator) -> Sample:
        """Augment a sample, to ``(crop, crop)`` pixels or as a whole; equal generator states give equal results."""
        factor = float(random.choice(self.scale_set)) if self.scale_set else random.uniform(*self.scale)
        (top, rows, height), (left, columns, width) = (self._window(n, factor, random) for n in sample.mask.shape)
        mirror = -1 if self.flip and random.random() < 0.5 else 1
        colors = self._color_matrix(random)

        # Only what the crop shows is resized, which is several times quicker than a warp of the same size.
        source = np.s_[top : top + rows, left : left + columns]
        across, down = (self.crop or width), (self.crop or height)
        shown = np.s_[:down, :across]
        resized = cv2.resize(sample.image[source], (width, height), interpolation=cv2.INTER_LINEAR)[shown]
        resized = resized.reshape(*resized.shape[:2], -1)  # OpenCV drops the axis of a single channel
        if colors is not None:
            resized[..., :3] = cv2.transform(resized[..., :3], colors)
        bottom, right = resized.shape[:2]
        image = np.empty((down, across, resized.shape[2]), resized.dtype)
        image[bottom:] = image[:, right:] = self.fill if image.dtype.kind == "f" else np.round(self.fill)
        image[:bottom, :right] = resized[:, ::mirror]

        def warped(mask: Mask) -> Mask:
            labels = cv2.resize(mask[source], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)[shown]
            result = np.full((down, across), ignore_of(mask))
            result[:bottom, :right] = labels[:, ::mirror]
            return result

        auxiliary = {name: warped(mask) for name, mask in sample.auxiliary_masks.items()}
        return Sample(image, warped(sample.mask), sample.name, auxiliary)

    def _window(self, side: int, factor: float, random: np.random.Generator) -> tuple[int, int, int]:
        """Along one side: where the crop begins, how many source pixels it shows, and how many once scaled."""
        length = min(side, math.ceil(self.crop / factor)) if self.crop else side
        return int(random.integers(0, side - length + 1)), length, max(1, round(length * factor))

    def _color_matrix(self, random: np.random.Generator) -> NDArray[np.float64] | None:
        """Brightness, contrast, saturation and hue are all linear in RGB: one 3×4 matrix does them in a single pass."""
        if not (self.colored and (self.brightness or self.contrast or self.saturation or self.hue)):
            return None
        ranges = self.brightness, self.contrast, self.saturation
        gain, contrast, saturation = (1 + random.uniform(-r, r) for r in ranges)
        angle = np.deg2rad(random.uniform(-self.hue, self.hue))
        grey = np.full((3, 3), 1 / 3)
        luma = np.tile([0.299, 0.587, 0.114], (3, 1))
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        # Rodrigues' rotation about the grey axis.
        turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * grey + np.sin(angle) * cross
        mix = gain * contrast * ((saturation * np.eye(3) + (1 - saturation) * luma) @ turn)
        shift = np.full((3, 1), 128 * gain * (1 - contrast))
        matrix: NDArray[np.float64] = np.hstack([mix, shift])
        return matrix
