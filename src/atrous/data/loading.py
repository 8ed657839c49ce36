"""From a dataset to training batches: order, random numbers and worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from atrous.data.augment import Augment, Augmentation
from atrous.data.balance import CopyPaste, draw_epoch
from atrous.data.dataset import Dataset, Sample, check_sample, dataset_extras, region
from atrous.errors import AtrousError, DatasetError, InputError
from atrous.labels import Mask


class Batch(NamedTuple):
    """A training batch.

    Args:
        images: uint8 (or the dataset's type) ``(B, C, H, W)`` in channels-last memory.
        masks: uint8 ``(B, H, W)``; int32 for more than 255 classes, of which torch can do more than of uint16.
        names: of the images.
        auxiliary_masks: the same by name.
    """

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]
    auxiliary_masks: dict[str, Tensor]


Place = tuple[int, int]
"""The epoch of an example and its number; numbers beyond the length of the dataset are the same images again."""
Example = tuple[Tensor, Tensor, str, dict[str, Tensor]]


class _Examples(TorchDataset[Example | Exception]):
    """Augmented examples; their random numbers come from (seed, epoch, number), whichever worker makes them."""

    def __init__(self, dataset: Dataset, augmentation: Augment, seed: int) -> None:
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed
        self.read = region if isinstance(augmentation, Augmentation | CopyPaste) else _whole  # others want arrays
        self.dtype = dataset_extras(dataset).images.dtype

    def __getitem__(self, place: Place) -> Example | Exception:
        epoch, number = place
        try:
            sample = self.read(self.dataset, number % len(self.dataset))
        except (ValueError, OSError) as error:
            return error  # a value, since raised in a worker it would arrive wrapped in the worker's traceback
        try:
            augmented = self.augmentation(sample, np.random.default_rng((self.seed, epoch, number)))
        except AtrousError as error:  # of another image that is pasted in
            return error
        try:
            check_sample(augmented, self.dtype)
        except DatasetError as error:
            return DatasetError(f"augmentation of {sample.name}: {error}")
        auxiliary = {name: _labels(mask) for name, mask in augmented.auxiliary_masks.items()}
        return _tensor(augmented.image), _labels(augmented.mask), augmented.name, auxiliary


def _whole(dataset: Dataset, index: int) -> Sample:
    return dataset[index]


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))  # torch takes no negative strides: image[:, ::-1]


def _labels(mask: Mask) -> Tensor:
    return _tensor(mask if mask.dtype == np.uint8 else mask.astype(np.int32))


class _Order:
    """Endless batches of places. Each epoch is reshuffled; its last incomplete batch is dropped."""

    def __init__(
        self,
        length: int,
        weights: NDArray[np.float64] | None,
        batch_size: int,
        parts: int,
        seed: int,
        start: int,
        rank: int,
        world: int,
    ) -> None:
        self.length, self.weights, self.batch_size, self.parts = length, weights, batch_size, parts
        self.seed, self.start, self.rank, self.world = seed, start, rank, world

    def __iter__(self) -> Iterator[list[Place]]:
        per_epoch = steps_per_epoch(self.length, self.batch_size)
        share = self.batch_size // (self.parts * self.world)
        epoch, first = divmod(self.start, per_epoch)
        while True:
            order = self._shuffled(epoch)
            for position in range(first, per_epoch):
                for part in range(self.parts):
                    begin = position * self.batch_size + (part * self.world + self.rank) * share
                    yield [(epoch, int(number)) for number in order[begin : begin + share]]
            epoch, first = epoch + 1, 0

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng((self.seed, epoch))
        rounds = range(
            -(-self.batch_size // self.length)
        )  # fewer images than a batch: they repeat, augmented differently
        if self.weights is not None:
            drawn = np.concatenate([draw_epoch(self.weights, random) for _ in rounds])
            return _numbered_apart(drawn, self.length)
        order = random.permutation(self.length)
        return np.concatenate([order + turn * self.length for turn in rounds])


def _numbered_apart(drawn: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Numbers of drawn images in which an image that comes again has another one, so that it is augmented anew."""
    again = np.zeros(length, np.int64)
    numbers = np.empty_like(drawn)
    for place, index in enumerate(drawn):
        numbers[place] = index + again[index] * length
        again[index] += 1
    return numbers


def steps_per_epoch(length: int, batch_size: int) -> int:
    """The number of whole batches in a pass over ``length`` images; at least one."""
    return max(1, length // batch_size)


def _stack(examples: Sequence[Example | Exception]) -> Batch | Exception:
    good: list[Example] = []
    for example in examples:
        if isinstance(example, Exception):
            return example
        good.append(example)
    images, masks, names, auxiliary = zip(*good, strict=True)
    if len({image.shape for image in images}) > 1:
        shapes = ", ".join(f"{name}: {tuple(image.shape)}" for name, image in zip(names, images, strict=True))
        return InputError(f"the samples of a batch must have one size after augmentation, found {shapes}")
    return Batch(
        torch.stack(images).permute(0, 3, 1, 2),
        torch.stack(masks),
        tuple(names),
        {name: torch.stack([masks[name] for masks in auxiliary]) for name in auxiliary[0]},
    )


def _raise_errors(stream: Iterator[Batch | Exception]) -> Iterator[Batch]:
    for batch in stream:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def _quiet_worker(_: int) -> None:
    # Ctrl-C, and often SIGTERM, are sent to all of a group, and the training still wants a batch to end its step with.
    # SIGTERM is also how it ends its workers, so they hear it, but in a group of their own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def batches(
    dataset: Dataset,
    augmentation: Augment,
    *,
    batch_size: int,
    seed: int,
    parts: int = 1,
    workers: int = 0,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[Batch]:
    """Endless augmented batches of a dataset.

    Args:
        dataset: to draw from.
        augmentation: applied to each example.
        batch_size: examples per step, over all processes and parts; a multiple of ``parts * world``.
        seed: fixes order and augmentation.
        parts: number of batches, one after the other, into which a step is divided.
        workers: processes that decode and augment; 0 for this process.
        start: the first step, from which a resumed run continues.
        rank: number of this process; each gets its own share of every step.
        world: number of processes.
        pin_memory: for fast copies to a GPU.
        weights: how often each image is drawn relative to the others, ``(N,)``; each once per epoch when left out.

    Raises:
        InputError: ``batch_size`` is not divisible. The iterator raises what reading a sample raises.
    """
    if batch_size % (parts * world):
        raise InputError(f"batch_size {batch_size} does not divide into {parts} part(s) on each of {world} process(es)")
    loader: DataLoader[Example | Exception] = DataLoader(
        _Examples(dataset, augmentation, seed),
        batch_sampler=_Order(len(dataset), weights, batch_size, parts, seed, start, rank, world),
        num_workers=workers,
        collate_fn=_stack,
        pin_memory=pin_memory,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
    )
    return _raise_errors(iter(loader))
