"""Batches: order and random numbers do not depend on workers, processes, parts or where a run was resumed."""

from itertools import islice

import numpy as np
import pytest
import torch

from atrous.data.augment import Augmentation
from atrous.data.dataset import Sample
from atrous.data.extras import Extras
from atrous.data.loading import Batch, batches, steps_per_epoch
from atrous.errors import DatasetError
from atrous.labels import LabelSet


class Noise:
    """Images of noise; ``broken`` can't be read."""

    name, label_set, extras = "noise", LabelSet(("a", "b")), Extras()

    def __init__(self, length: int = 11, broken: int = -1) -> None:
        self.length, self.broken = length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise DatasetError(f"{index}.png is broken")
        random = np.random.default_rng(index)
        image = random.integers(0, 256, (40, 50, 3), np.uint8)
        return Sample(image, random.integers(0, 2, (40, 50), np.uint8), f"{index}.png")


def take(count: int, dataset: Noise | None = None, **options: int) -> list[Batch]:
    options = {"batch_size": 4, "seed": 3} | options
    return list(islice(batches(dataset or Noise(), Augmentation(33), **options), count))  # type: ignore[arg-type]


def joined(some: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    names = [name for batch in some for name in batch.names]
    return torch.cat([b.images for b in some]), torch.cat([b.masks for b in some]), names


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    (images, masks, names), (images2, masks2, names2) = joined(some), joined(others)
    assert names == names2
    assert torch.equal(images, images2)
    assert torch.equal(masks, masks2)


def test_a_batch_is_uint8_and_channels_last() -> None:
    batch = take(1)[0]
    assert batch.images.shape == (4, 3, 33, 33)
    assert batch.masks.shape == (4, 33, 33)
    assert batch.images.dtype == batch.masks.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert len(batch.names) == 4


def test_an_epoch_repeats_no_image_and_the_next_is_reshuffled() -> None:
    names = [batch.names for batch in take(4)]  # 11 images: two batches of 4 an epoch
    first, second = {*names[0], *names[1]}, {*names[2], *names[3]}
    assert len(first) == len(second) == 8
    assert names[:2] != names[2:]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(workers: int) -> None:
    assert_same(take(5, workers=workers), take(5))


@pytest.mark.parametrize("start", [1, 2, 5])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_later_start_continues_where_an_earlier_one_would_be(start: int, parts: int) -> None:
    assert_same(take(2 * parts, start=start, parts=parts), take((start + 2) * parts, parts=parts)[start * parts :])


def test_consecutive_parts_make_up_the_batch() -> None:
    for step, whole in enumerate(take(3)):
        assert_same(take(6, parts=2)[2 * step : 2 * step + 2], [whole])


@pytest.mark.parametrize("parts", [1, 2])
def test_the_shares_of_all_ranks_make_up_the_batch(parts: int) -> None:
    one = take(3 * parts, parts=parts)
    ranks = [take(3 * parts, parts=parts, rank=rank, world=2) for rank in range(2)]
    for number, batch in enumerate(one):
        assert_same([ranks[0][number], ranks[1][number]], [batch])


def test_another_seed_gives_another_order() -> None:
    assert joined(take(2))[2] != joined(take(2, seed=4))[2]


def test_epochs_augment_an_image_differently() -> None:
    (first,), (second,) = (take(1, Noise(1), batch_size=1, start=start) for start in (0, 1))
    assert first.names == second.names
    assert not torch.equal(first.images, second.images)


def test_fewer_images_than_a_batch_are_repeated_and_augmented_again() -> None:
    batch = take(1, Noise(2), batch_size=5)[0]
    assert set(batch.names) == {"0.png", "1.png"}
    same = [i for i, name in enumerate(batch.names) if name == "0.png"]
    assert not torch.equal(batch.images[same[0]], batch.images[same[1]])


@pytest.mark.parametrize(("length", "batch", "steps"), [(11, 4, 2), (8, 4, 2), (3, 4, 1), (1, 1, 1)])
def test_steps_of_an_epoch(length: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(length, batch) == steps


def test_a_batch_that_does_not_divide_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"batch_size 4 does not divide into 3 part\(s\) on each of 1 process"):
        take(1, parts=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_pair_raises_the_same_error_in_a_worker(workers: int) -> None:
    with pytest.raises(DatasetError) as caught:
        take(3, Noise(8, broken=5), workers=workers)
    assert str(caught.value) == "5.png is broken"


def test_an_augmentation_may_return_a_mirrored_view() -> None:
    def mirror(sample: Sample, _: np.random.Generator) -> Sample:
        return Sample(sample.image[:, ::-1], sample.mask[:, ::-1], sample.name)

    batch = next(batches(Noise(), mirror, batch_size=4, seed=3))
    number = int(batch.names[0].removesuffix(".png"))
    np.testing.assert_array_equal(batch.masks[0], Noise()[number].mask[:, ::-1])


def test_an_augmentation_that_returns_no_sample_is_refused_with_the_image() -> None:
    with pytest.raises(DatasetError, match=r"augmentation of \d+.png: an ndarray, expected atrous.data.Sample"):
        next(batches(Noise(), lambda sample, _: sample.image, batch_size=4, seed=3))  # type: ignore[arg-type,return-value]
