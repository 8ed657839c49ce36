"""From a dataset to batches: the order, the random numbers and the workers of training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from atrous.data.datasets import Dataset
from atrous.data.transforms import Augmentation


class Batch(NamedTuple):
    """uint8 photos ``(B, 3, H, W)`` in channels-last memory, uint8 masks ``(B, H, W)``, and the photos' names."""

    photos: Tensor
    masks: Tensor
    names: tuple[str, ...]


Place = tuple[int, int]
"""The epoch and the index of an example."""


class _Examples(TorchDataset[tuple[Tensor, Tensor, str]]):
    """Augmented examples. Their random numbers come from (seed, epoch, index) alone: no worker, process or resume changes them."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, seed: int) -> None:
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed

    def __getitem__(self, place: Place) -> tuple[Tensor, Tensor, str]:
        epoch, index = place
        sample = self.augmentation(self.dataset[index], np.random.default_rng((self.seed, epoch, index)))
        return torch.from_numpy(sample.image), torch.from_numpy(sample.mask), sample.name


class _Order:
    """Batches of places, endlessly. Each epoch is a shuffle of its own; its last incomplete batch is dropped."""

    def __init__(self, length: int, batch_size: int, parts: int, seed: int, start: int, rank: int, world: int) -> None:
        self.length, self.batch_size, self.parts = length, batch_size, parts
        self.seed, self.start, self.rank, self.world = seed, start, rank, world

    def __iter__(self) -> Iterator[list[Place]]:
        per_epoch = steps_per_epoch(self.length, self.batch_size)
        share = self.batch_size // (self.parts * self.world)
        number = self.start
        while True:
            epoch, position = divmod(number, per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
            order = np.resize(order, max(self.length, self.batch_size))  # fewer pictures than a batch: they come again
            for part in range(self.parts):
                first = position * self.batch_size + (part * self.world + self.rank) * share
                yield [(epoch, int(i)) for i in order[first : first + share]]
            number += 1


def steps_per_epoch(length: int, batch_size: int) -> int:
    """How many whole batches a pass over ``length`` pictures has; at least one."""
    return max(1, length // batch_size)


def _stack(examples: list[tuple[Tensor, Tensor, str]]) -> Batch:
    photos, masks, names = zip(*examples, strict=True)
    return Batch(torch.stack(photos).permute(0, 3, 1, 2), torch.stack(masks), tuple(names))


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def batches(
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    parts: int = 1,
    workers: int = 0,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Endless augmented batches of a dataset.

    Args:
        dataset: what to draw from.
        augmentation: what to do to each example.
        batch_size: examples a step, over all processes and parts; a multiple of ``parts * world``.
        seed: fixes order and augmentation.
        parts: in how many batches, one after the other, a step's examples come.
        workers: processes that decode and warp; 0 does it here.
        start: the first step, so that a resumed run goes on where it stopped.
        rank, world: this process among how many; each gets its own share of every step.
        pin_memory: for quick copies to a GPU.

    Raises:
        ValueError: a batch that does not divide.
    """
    if batch_size % (parts * world):
        raise ValueError(f"batch_size {batch_size} does not divide into {parts} part(s) on each of {world} process(es)")
    order = _Order(len(dataset), batch_size, parts, seed, start, rank, world)
    loader = DataLoader(
        _Examples(dataset, augmentation, seed),
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_stack,
        pin_memory=pin_memory,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)
