"""How often each class occurs in a dataset, and the class weights that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atrous.data.datasets import Dataset
from atrous.labels import IGNORE

READERS_AT_ONCE = 4
"""Threads that read pairs: decoding lets other threads run."""


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How often each of C classes occurs in a dataset.

    Args:
        pixels: int64 ``(C,)``, pixels of the class.
        pictures: int64 ``(C,)``, pictures with at least one pixel of it.
        surroundings: int64 ``(C,)``, judged pixels of those pictures.
        ignored: pixels that nobody judges.
    """

    pixels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    surroundings: NDArray[np.int64]
    ignored: int


def count_classes(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> ClassCounts:
    """Count the classes of a dataset, reading every pair once.

    Args:
        dataset: what to read.
        progress: called with the number of pairs read and their total after each pair.

    Raises:
        DatasetError, ImageError, MaskError: a pair that can't be read, or whose photo and mask disagree.
    """
    pixels, pictures, surroundings = np.zeros((3, 256), np.int64)
    with ThreadPoolExecutor(READERS_AT_ONCE, "count") as pool:
        histograms = pool.map(lambda index: _histogram(dataset, index), range(len(dataset)))
        for done, found in enumerate(histograms, 1):
            pixels += found
            pictures += found > 0
            surroundings += np.where(found > 0, found[:IGNORE].sum(), 0)
            if progress:
                progress(done, len(dataset))
    classes = slice(len(dataset.labels))
    return ClassCounts(pixels[classes], pictures[classes], surroundings[classes], int(pixels[IGNORE]))


def _histogram(dataset: Dataset, index: int) -> NDArray[np.int64]:
    return np.bincount(dataset[index].mask.reshape(-1), minlength=256)


def median_frequency(counts: ClassCounts) -> NDArray[np.float64]:
    """Class weights ``(C,)`` by median frequency balancing (Eigen & Fergus 2015, section 6.3.2).

    The frequency of a class is its pixels over all judged pixels of the pictures in which it occurs; its weight is the
    median frequency of the classes that occur over its own. A class that never occurs has weight 0: nothing is to be
    learnt of it, and label smoothing must not push it up.
    """
    frequency = counts.pixels / np.maximum(counts.surroundings, 1)
    there = counts.pixels > 0
    weights = np.zeros(len(frequency))
    if there.any():
        weights[there] = np.median(frequency[there]) / frequency[there]
    return weights


def inverse_log(counts: ClassCounts) -> NDArray[np.float64]:
    """Class weights ``(C,)`` by ENet's rule, 1 / ln(1.02 + p) with p the class's share of all judged pixels.

    They lie between 1.42 (the only class) and 50.5 (the rarest). A class that never occurs has weight 0, as in
    :func:`median_frequency`.
    """
    share = counts.pixels / max(int(counts.pixels.sum()), 1)
    return np.where(counts.pixels > 0, 1 / np.log(1.02 + share), 0.0)
