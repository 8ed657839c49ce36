"""Augmentation as one joint warp in uint8: photo and mask are scaled, flipped and cropped by the same matrix."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.datasets import Sample
from atrous.labels import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip and colour, as DeepLab trains (SPEC §4.9); what lies beyond the picture is ignored.

    Args:
        crop: side of the square result in pixels; 32k + 1 suits DeepLab.
        scale: smallest and largest scale factor, drawn uniformly.
        flip: mirror every second picture.
        brightness, contrast, saturation: largest change as a share; 0 leaves colours alone.
        hue: largest turn in degrees.
        fill: RGB value of padding, 0–255: the mean of the network's pictures.
    """

    crop: int = 513
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    fill: tuple[float, float, float] = (123.675, 116.28, 103.53)

    def __call__(self, sample: Sample, random: np.random.Generator) -> Sample:
        """Warp a sample to ``(crop, crop)``; the same generator state gives the same result."""
        height, width = sample.mask.shape
        factor = random.uniform(*self.scale)
        scaled_h, scaled_w = height * factor, width * factor
        top, left = (random.uniform(0, max(0.0, side - self.crop)) for side in (scaled_h, scaled_w))
        # Pixel centres: x' = (x + ½) · factor − ½ − left; mirrored about the scaled picture's middle, then cropped.
        matrix = np.array([[factor, 0, (factor - 1) / 2 - left], [0, factor, (factor - 1) / 2 - top]])
        if self.flip and random.random() < 0.5:
            matrix[0] = -factor, 0, scaled_w - (factor + 1) / 2 - left
        # The picture's edges lie below and right of its crop: what is beyond them is added after the colours.
        rows, columns = (max(1, min(self.crop, int(n + 0.5))) for n in (scaled_h - top, scaled_w - left))
        image = _warp(sample.image, matrix, (columns, rows), cv2.INTER_LINEAR)
        mask = _warp(sample.mask, matrix, (columns, rows), cv2.INTER_NEAREST)
        colors = self._color_matrix(random)
        if colors is not None:
            image = cv2.transform(image, colors)
        return Sample(self._padded(image, self.fill), self._padded(mask, (IGNORE,)), sample.name)

    def _padded(self, pixels: cv2.typing.MatLike, value: tuple[float, ...]) -> NDArray[np.uint8]:
        below, right = self.crop - pixels.shape[0], self.crop - pixels.shape[1]
        if below or right:
            pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)
        return np.asarray(pixels, np.uint8)

    def _color_matrix(self, random: np.random.Generator) -> NDArray[np.float64] | None:
        """Brightness, contrast, saturation and hue are all linear in RGB: one 3×4 matrix does them in a single pass."""
        if not (self.brightness or self.contrast or self.saturation or self.hue):
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


def _warp(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int], sampling: int
) -> cv2.typing.MatLike:
    return cv2.warpAffine(pixels, matrix, size, flags=sampling, borderMode=cv2.BORDER_REPLICATE)
