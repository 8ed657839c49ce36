"""Balanced sampling and copy-paste: rare classes are seen more often, and masks stay exact."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.data.augment import Augmentation
from atrous.data.balance import CopyPaste, class_presence, draw_epoch, repeat_factors
from atrous.data.dataset import Sample
from atrous.data.loading import batches
from atrous.labels import LabelSet

SIDE = 33
KEEP = Augmentation(crop=SIDE, scale=(1.0, 1.0), flip=False)


class Stripes:
    """Image *i* is of colour *i* and has, in its right half, class ``classes[i]`` with an ignored border."""

    def __init__(self, classes: list[int]) -> None:
        self.classes = classes
        self.label_set = LabelSet(("ground", "common", "rare"))

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> Sample:
        image = np.full((SIDE, SIDE, 3), 10 * (index + 1), np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if label := self.classes[index]:
            mask[:, SIDE // 2 - 2 :] = 255
            mask[:, SIDE // 2 :] = label
        return Sample(image, mask, str(index))


def test_presence_is_by_share_of_the_image() -> None:
    data = Stripes([0, 1, 2])
    assert class_presence(data).tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_repeat_factors_are_those_of_the_rarest_class_of_an_image() -> None:
    presence = np.zeros((100, 3), bool)
    presence[:, 0] = presence[:50, 1] = presence[:4, 2] = True
    factors = repeat_factors(presence, threshold=0.16)
    assert factors[:4] == pytest.approx(2)  # sqrt(0.16 / 0.04)
    assert (factors[4:] == 1).all()


@given(st.lists(st.floats(1, 9), min_size=1, max_size=60), st.integers(0, 99))
def test_an_epoch_draws_each_image_in_proportion_rounded(weights: list[float], seed: int) -> None:
    drawn = draw_epoch(np.array(weights), np.random.default_rng(seed))
    assert len(drawn) == len(weights)
    wanted = len(weights) * np.array(weights) / sum(weights)
    found = np.bincount(drawn, minlength=len(weights))
    assert (np.abs(found - wanted) < 1 + 1e-6).all()


def names(weights: np.ndarray | None, start: int = 0, count: int = 30) -> list[tuple[str, ...]]:
    data = Stripes([1] * 9 + [2])
    stream = batches(data, KEEP, batch_size=2, seed=3, start=start, weights=weights)
    return [batch.names for batch in islice(stream, count)]


def test_rare_images_come_more_often_and_a_resumed_run_draws_the_same() -> None:
    weights = repeat_factors(class_presence(Stripes([1] * 9 + [2])), threshold=0.9)
    balanced = names(weights)
    assert sum(batch.count("9") for batch in balanced) > 2 * sum(batch.count("9") for batch in names(None))
    assert names(weights, start=13, count=17) == balanced[13:]


def test_an_image_that_comes_again_in_an_epoch_is_augmented_anew() -> None:
    data = Stripes([1, 2])
    weights = np.array([1.0, 99.0])
    (batch,) = islice(batches(data, Augmentation(crop=17), batch_size=2, seed=0, weights=weights), 1)
    assert batch.names == ("1", "1")
    assert not np.array_equal(batch.masks[0], batch.masks[1])


def test_pasted_pixels_are_the_donors_and_its_ignored_border_stays_behind() -> None:
    data = Stripes([1, 1, 1, 2])
    paste = CopyPaste.of_rare_classes(KEEP, data, class_presence(data), probability=1.0)
    seen = set()
    for seed in range(40):
        before = data[0]
        after = paste(before, np.random.default_rng(seed))
        pasted = (after.image != before.image).any(2)
        label = int(after.mask[pasted].max()) if pasted.any() else 1
        seen.add(label)
        assert np.array_equal(after.mask[~pasted], before.mask[~pasted])
        if label == 2:
            assert (after.image[pasted] == data[3].image[0, 0]).all()
            assert np.array_equal(pasted, data[3].mask == 2)
            assert (after.mask == 255).sum() == (before.mask == 255).sum()
    assert seen == {1, 2}


def test_nothing_is_pasted_where_no_class_but_the_first_occurs() -> None:
    data = Stripes([0, 0])
    paste = CopyPaste.of_rare_classes(KEEP, data, class_presence(data), probability=1.0)
    assert np.array_equal(paste(data[0], np.random.default_rng(0)).mask, data[0].mask)
