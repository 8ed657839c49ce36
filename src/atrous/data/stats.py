"""Statistics of a dataset's classes, sizes and channels, and class weights from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.channel_stats import ChannelStats, Measured, add_up_channels, measure_channels
from atrous.data.dataset import Dataset, dataset_extras, dataset_name
from atrous.data.files.orientation import shown
from atrous.data.files.threads import Progress, read_all
from atrous.labels import LabelSet, Mask, ignore_of, ignore_value

SMALL = 0.1
"""Below this share of the labelled pixels, a loss that adds up pixels sees little of a class."""
RARE = 0.15
"""Below this share of the images, a class is rare: ``data.rare_below`` of a recipe."""


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Frequencies of the C classes of a dataset.

    Args:
        pixels: int64 ``(C,)``, pixels of the class.
        images: int64 ``(C,)``, images with at least one pixel of it.
        surroundings: int64 ``(C,)``, pixels of any class in those images.
        ignored: number of ignored pixels.
    """

    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    surroundings: NDArray[np.int64]
    ignored: int


def count_classes(dataset: Dataset, progress: Progress | None = None) -> ClassCounts:
    """Count the classes of a dataset, reading every pair once.

    Args:
        dataset: to read.
        progress: called with the number of pairs read and their total after each pair.

    Raises:
        DatasetError, ImageError, MaskError: a pair that can't be read, or whose image and mask disagree.
    """

    def read(index: int) -> NDArray[np.int64]:
        return histogram_of(dataset[index].mask)

    return add_up(read_all(read, range(len(dataset)), progress), len(dataset.label_set))


def add_up(histograms: Iterable[NDArray[np.int64]], num_classes: int) -> ClassCounts:
    """Add up the pixels of each label in each image, as :func:`histogram_of` counts them."""
    pixels, images, surroundings = np.zeros((3, ignore_value(num_classes) + 1), np.int64)
    for found in histograms:
        pixels += found
        images += found > 0
        surroundings += np.where(found > 0, found[:-1].sum(), 0)
    classes = slice(num_classes)
    return ClassCounts(pixels[classes], images[classes], surroundings[classes], int(pixels[-1]))


def histogram_of(mask: Mask) -> NDArray[np.int64]:
    """The pixels of each value of a mask, int64 ``(256,)`` or ``(65536,)``; the last are the ignored ones."""
    return np.bincount(mask.reshape(-1), minlength=int(ignore_of(mask)) + 1)


def median_frequency(counts: ClassCounts) -> NDArray[np.float64]:
    """Class weights ``(C,)`` by median frequency balancing (Eigen & Fergus, ICCV 2015, arXiv 1411.4734).

    The frequency of a class is its pixels over all pixels of classes in the images that contain it; its weight is the
    median frequency of the classes that occur over its own. A class that never occurs has weight 0: there is
    nothing to learn of it, and label smoothing must not raise it.
    """
    frequency = counts.pixels / np.maximum(counts.surroundings, 1)
    there = counts.pixels > 0
    weights = np.zeros(len(frequency))
    if there.any():
        weights[there] = np.median(frequency[there]) / frequency[there]
    return weights


def inverse_log(counts: ClassCounts) -> NDArray[np.float64]:
    """Class weights ``(C,)`` by the rule of ENet (Paszke et al., arXiv 1606.02147).

    It is 1 / ln(1.02 + p) with p the class's share of all pixels of classes.
    They lie between 1.42 (the only class) and 50.5 (the rarest). A class that never occurs has weight 0, as in
    :func:`median_frequency`.
    """
    share = counts.pixels / max(int(counts.pixels.sum()), 1)
    return np.where(counts.pixels > 0, 1 / np.log(1.02 + share), 0.0)


@dataclass(frozen=True, eq=False)
class Stats:
    """Statistics of a dataset.

    Args:
        name: of the dataset.
        label_set: its C classes.
        counts: how often each occurs.
        pixels: int64 ``(N, C)``, the pixels of each class in each of the N readable images.
        places: the indices of these N images.
        sizes: height and width of each.
        broken: error messages of the other images.
        channels: of the images, by channel; None if there is nothing to measure.
    """

    name: str
    label_set: LabelSet
    counts: ClassCounts
    pixels: NDArray[np.int64]
    places: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    broken: tuple[str, ...]
    channels: ChannelStats | None = None

    def text(self) -> str:
        """The statistics as text: tables of classes, sizes and channels."""
        counts, width = self.counts, max(len("class"), *map(len, self.label_set.names))
        total = max(int(counts.pixels.sum()) + counts.ignored, 1)
        lines = [
            f"{self.name}: {len(self.sizes)} images",
            f"  {'class':{width}}    pixels  images  median-frequency weight  inverse-log weight",
        ]
        rows = zip(
            self.label_set.names,
            counts.pixels,
            counts.images,
            median_frequency(counts),
            inverse_log(counts),
            strict=True,
        )
        for name, pixels, images, median, log in rows:
            lines.append(f"  {name:{width}}  {100 * pixels / total:6.2f} %  {images:8}  {median:23.4g}  {log:18.4g}")
        lines.append(f"  {'(ignored)':{width}}  {100 * counts.ignored / total:6.2f} %")
        absent = [name for name, pixels in zip(self.label_set.names, counts.pixels, strict=True) if not pixels]
        if absent:
            lines.append(f"  weight 0, since they never occur: {', '.join(absent)}")
        channels = self.channels.lines() if self.channels else []
        return "\n".join([*lines, *self._sizes(), *channels, *self._suggestions()])

    def _suggestions(self) -> list[str]:
        """What a training may need for classes that are small in the images, or in few of them."""
        shares = self.counts.pixels / max(int(self.counts.pixels.sum()), 1)
        frequencies = self.counts.images / max(len(self.sizes), 1)
        there = [place for place, pixels in enumerate(self.counts.pixels) if pixels]
        names = self.label_set.names
        small = [f"{names[place]} ({100 * shares[place]:.2g} %)" for place in there if shares[place] < SMALL]
        rare = [f"{names[place]} ({self.counts.images[place]})" for place in there if frequencies[place] < RARE]
        lines = []
        if small and len(there) > 1:
            lines.append(f"  few pixels: {_some(small)}; worth a trial: --set loss.class_weights=auto")
        if rare:
            lines.append(f"  in few images: {_some(rare)}; worth a trial: --set data.sampling=balanced")
        return lines

    def _sizes(self) -> list[str]:
        if not self.sizes:
            return []
        by_area = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        usual = Counter(self.sizes).most_common(5)
        return [
            f"  sizes: {shown(by_area[0])} to {shown(by_area[-1])}, median {shown(by_area[len(by_area) // 2])}",
            f"  most frequent: {', '.join(f'{shown(size)} ({count})' for size, count in usual)}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """The statistics for JSON; sizes are height, width and the number of images."""
        counts = self.counts
        columns = {
            "name": self.label_set.names,
            "pixels": counts.pixels.tolist(),
            "images": counts.images.tolist(),
            "surroundings": counts.surroundings.tolist(),
            "median_frequency": median_frequency(counts).tolist(),
            "inverse_log": inverse_log(counts).tolist(),
        }
        return {
            "data": self.name,
            "images": len(self.sizes),
            "ignored_pixels": counts.ignored,
            "classes": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
            "sizes": [[*size, count] for size, count in Counter(self.sizes).most_common()],
            "broken": list(self.broken),
            "image_channels": self.channels.to_dict() if self.channels else None,
        }


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def measure(dataset: Dataset, progress: Progress | None = None) -> Stats:
    """Compute statistics of a dataset, reading every sample once; unreadable ones are named, the others counted.

    Args:
        dataset: to read.
        progress: called with the number of pairs read and their total after each pair.
    """

    def read(index: int) -> tuple[NDArray[np.int64], tuple[int, int], Measured | None] | str:
        try:
            sample = dataset[index]
        except (ValueError, OSError) as error:
            return str(error)
        mask = sample.mask
        return histogram_of(mask), (mask.shape[0], mask.shape[1]), measure_channels(sample)

    answers = list(read_all(read, range(len(dataset)), progress))
    good = {place: answer for place, answer in enumerate(answers) if not isinstance(answer, str)}
    histograms = [histogram for histogram, _, _ in good.values()]
    classes = len(dataset.label_set)
    return Stats(
        dataset_name(dataset),
        dataset.label_set,
        add_up(histograms, classes),
        np.array([found[:classes] for found in histograms], np.int64).reshape(-1, classes),
        tuple(good),
        tuple(size for _, size, _ in good.values()),
        tuple(answer for answer in answers if isinstance(answer, str)),
        add_up_channels(dataset_extras(dataset).form, (measured for _, _, measured in good.values())),
    )
