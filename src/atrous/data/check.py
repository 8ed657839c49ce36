"""Looking a dataset over before training on it: does every pair open, and which classes are in it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from atrous.data.datasets import Dataset
from atrous.labels import IGNORE


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs: in how many pictures, and in how many pixels."""

    name: str
    pictures: int
    pixels: int


@dataclass(frozen=True)
class Check:
    """What :func:`check` found.

    Args:
        pictures: how many pairs could be read.
        broken: what is wrong with those that could not.
        classes: one entry a class, in the order of the label set.
        ignored: pixels that nobody judges.
        smallest: height and width of the picture with the fewest pixels.
        largest: height and width of the picture with the most pixels.
    """

    pictures: int
    broken: tuple[str, ...]
    classes: tuple[ClassCount, ...]
    ignored: int
    smallest: tuple[int, int]
    largest: tuple[int, int]


def check(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Check:
    """Read every photo and mask of a dataset and count its classes.

    Args:
        dataset: what to read.
        progress: called with the number of pairs read and their total after each pair.

    Returns:
        The counts; a pair that cannot be read is in ``broken``, with the reason, and the rest goes on.
    """
    broken: list[str] = []
    sizes: list[tuple[int, int]] = []
    pictures, pixels = np.zeros(256, np.int64), np.zeros(256, np.int64)

    def read(index: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]] | str:
        try:
            mask = dataset[index].mask
        except (ValueError, OSError) as error:
            return str(error)
        return np.concatenate([mask.shape, np.bincount(mask.reshape(-1), minlength=256)])

    with ThreadPoolExecutor(4, "check") as pool:
        for done, found in enumerate(pool.map(read, range(len(dataset))), 1):
            if isinstance(found, str):
                broken.append(found)
            else:
                sizes.append((int(found[0]), int(found[1])))
                pixels += found[2:]
                pictures += found[2:] > 0
            if progress:
                progress(done, len(dataset))
    sizes.sort(key=lambda size: size[0] * size[1])
    classes = tuple(
        ClassCount(name, int(pictures[label]), int(pixels[label])) for label, name in enumerate(dataset.labels.names)
    )
    return Check(
        len(sizes), tuple(broken), classes, int(pixels[IGNORE]), *(sizes[0], sizes[-1]) if sizes else ((0, 0), (0, 0))
    )
