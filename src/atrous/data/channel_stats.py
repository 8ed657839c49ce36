"""Statistics of each channel of images: what a network of other images than 8-bit RGB is normalised by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset, Sample, dataset_extras, dataset_name
from atrous.data.files.image_form import ImageForm
from atrous.data.files.threads import read_all
from atrous.errors import DatasetError

MOST_IMAGES = 256
"""Images that a training measures, spread evenly; `atrous data stats` measures all."""
_KEPT = 4096
"""Values of a channel of an image that percentiles are found from, spread evenly."""
_EMPTY = "every pixel is without a measurement (nodata)"


@dataclass(frozen=True, eq=False)
class ChannelStats:
    """Statistics of the C channels of images, in the images' own values, without pixels that were not measured.

    Args:
        form: what the images contain.
        mean, std: float64 ``(C,)``, over all pixels of all images.
        lowest, highest: ``(C,)``.
        low, high: the 1st and the 99th percentile ``(C,)``, of at most 4096 pixels of each image.
        absent: share of the pixels that were not measured.
    """

    form: ImageForm
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    absent: float

    def lines(self) -> list[str]:
        """The statistics as a table of text."""
        lines = [f"  {self.form}", "  channel      mean       std    lowest      1 %      99 %   highest"]
        columns = (self.mean, self.std, self.lowest, self.low, self.high, self.highest)
        for number, row in enumerate(zip(*columns, strict=True), 1):
            lines.append(f"  {number:7}" + "".join(f"{value:10.5g}" for value in row))
        if self.absent:
            lines.append(f"  not measured (nodata): {100 * self.absent:.2g} % of the pixels")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The statistics for JSON."""
        columns = {key: getattr(self, key) for key in ("mean", "std", "lowest", "low", "high", "highest")}
        return {
            "dtype": self.form.dtype,
            "not_measured": self.absent,
            "channels": [
                dict(zip(columns, (float(value) for value in row), strict=True))
                for row in zip(*columns.values(), strict=True)
            ],
        }


class Measured(NamedTuple):
    """What is known of the channels of one image: arrays ``(C,)`` and, for percentiles, values ``(n, C)``."""

    pixels: int
    absent: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    kept: NDArray[Any]


def measure_channels(sample: Sample) -> Measured | None:
    """Measure the channels of an image; None if none of its pixels was measured."""
    values = sample.image.reshape(-1, sample.image.shape[2])
    if sample.absent is not None:
        values = values[~sample.absent.reshape(-1)]
    if not len(values):
        return None
    mean = values.mean(axis=0, dtype=np.float64)
    squares = np.array([np.square(channel - at).sum() for channel, at in zip(values.T, mean, strict=True)])
    step = -(-len(values) // _KEPT)
    absent = sample.mask.size - len(values)
    return Measured(len(values), absent, mean, squares, values.min(axis=0), values.max(axis=0), values[::step].copy())


def add_up_channels(form: ImageForm, measured: Iterable[Measured | None]) -> ChannelStats | None:
    """The statistics of all images together (Chan, Golub & LeVeque 1979); None if nothing was measured."""
    found = [image for image in measured if image is not None]
    if not found:
        return None
    pixels, mean, squares = 0, np.zeros(len(found[0].mean)), np.zeros(len(found[0].mean))
    for image in found:
        together = pixels + image.pixels
        squares += image.squares + np.square(image.mean - mean) * (pixels * image.pixels / together)
        mean += (image.mean - mean) * (image.pixels / together)
        pixels = together
    low, high = np.percentile(np.concatenate([image.kept for image in found]), (1, 99), axis=0)
    lowest = np.min([image.lowest for image in found], axis=0).astype(np.float64)
    highest = np.max([image.highest for image in found], axis=0).astype(np.float64)
    absent = sum(image.absent for image in found)
    std = np.sqrt(squares / pixels)
    return ChannelStats(form, mean, std, lowest, highest, low, high, absent / (pixels + absent))


def channel_stats(dataset: Dataset, most: int = MOST_IMAGES) -> ChannelStats:
    """Measure the channels of a dataset's images.

    Args:
        dataset: to read.
        most: number of images to measure, spread evenly.

    Raises:
        DatasetError, ImageError, MaskError: an image that can't be read, or none with a measured pixel.
    """
    indices = range(0, len(dataset), -(-len(dataset) // most))
    found = add_up_channels(
        dataset_extras(dataset).form, read_all(lambda index: measure_channels(dataset[index]), indices)
    )
    if found is None:
        raise DatasetError(f"{dataset_name(dataset)}: {_EMPTY}; look at its files")
    return found
