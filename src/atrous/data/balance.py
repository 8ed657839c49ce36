"""Training that sees rare classes often enough: class-balanced sampling of images, and copy-paste of rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atrous.data.augment import Augmentation
from atrous.data.dataset import Dataset, Sample, region
from atrous.data.files.threads import Progress, read_all

LEAST_SHARE = 0.002
"""Smallest share of an image's pixels that a class must have to count as present in it."""


def class_presence(dataset: Dataset, progress: Progress | None = None) -> NDArray[np.bool_]:
    """Which classes each image shows: bool ``(N, C)``. Every mask is read.

    Args:
        dataset: to read.
        progress: called with the number of images read and their total after each image.

    Raises:
        DatasetError, ImageError, MaskError: a sample that can't be read.
    """
    classes = len(dataset.label_set)

    def read(index: int) -> NDArray[np.bool_]:
        mask = dataset[index].mask
        counts = np.bincount(mask.reshape(-1), minlength=classes)[:classes]
        return np.asarray(counts > LEAST_SHARE * mask.size)

    return np.stack(list(read_all(read, range(len(dataset)), progress)))


def repeat_factors(presence: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """How often each image is drawn, relative to one without rare classes: float64 ``(N,)``, 1 or more.

    Repeat factor sampling (Gupta, Dollár & Girshick, LVIS, CVPR 2019, arXiv 1908.03195, §5.1): a class present in a
    share *f* of the images below the threshold *t* asks for ``sqrt(t / f)``; an image gets the largest of its classes.

    Args:
        presence: bool ``(N, C)``.
        threshold: the share of images below which a class is rare, 0–1.
    """
    share = presence.mean(axis=0)
    wanted = np.sqrt(threshold / np.maximum(share, 1 / (2 * max(1, len(presence)))))
    factors: NDArray[np.float64] = (presence * wanted).max(axis=1, initial=1.0)
    return factors


def draw_epoch(weights: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """Draw as many images as there are, each in proportion to its weight, in random order: int64 ``(N,)``.

    Systematic sampling: an image of weight *w* comes ``N · w / sum(weights)`` times, rounded down or up.
    """
    edges = np.cumsum(weights) * (len(weights) / weights.sum())
    drawn = np.searchsorted(edges, np.arange(len(weights)) + random.random(), side="right")
    return random.permutation(np.minimum(drawn, len(weights) - 1).astype(np.int64))


@dataclass(frozen=True)
class CopyPaste:
    """Pastes a rare class of another image into an augmented sample (Ghiasi et al., CVPR 2021, arXiv 2012.07177, for
    semantic masks).

    The other image is augmented like the first; all its pixels of the class, and nothing else, replace those of the
    sample, in the image and in the mask. The ignored border of an object stays behind.

    Args:
        augmentation: what both images pass through; both results must have one size.
        dataset: images to paste from.
        donors: the images that show each class, ``C`` arrays of indices; the first class is never pasted.
        shares: probability of each class to be chosen, ``(C,)``, summing to 1.
        probability: of pasting into a sample, 0–1.
    """

    augmentation: Augmentation
    dataset: Dataset
    donors: Sequence[NDArray[np.int64]]
    shares: NDArray[np.float64]
    probability: float

    @classmethod
    def of_rare_classes(
        cls, augmentation: Augmentation, dataset: Dataset, presence: NDArray[np.bool_], probability: float
    ) -> CopyPaste:
        """Choose classes in inverse proportion to the number of images that show them."""
        images = presence.sum(axis=0)
        rarity = np.where(images > 0, 1 / np.maximum(images, 1), 0.0)
        rarity[0] = 0.0  # the background, or the class that fills most of every image
        shares = rarity / rarity.sum() if rarity.any() else rarity
        donors = [np.flatnonzero(column).astype(np.int64) for column in presence.T]
        return cls(augmentation, dataset, donors, shares, probability if rarity.any() else 0.0)

    def __call__(self, sample: Sample, random: np.random.Generator) -> Sample:
        """Augment a sample, and paste into it with the given probability."""
        seen = self.augmentation(sample, random)
        if random.random() >= self.probability or seen.auxiliary_masks:
            return seen
        label = int(random.choice(len(self.shares), p=self.shares))
        other = self.augmentation(region(self.dataset, int(random.choice(self.donors[label]))), random)
        pasted = other.mask == label
        image = np.where(pasted[..., None], other.image, seen.image)
        return replace(seen, image=image, mask=np.where(pasted, other.mask, seen.mask))
