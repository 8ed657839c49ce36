"""Class frequencies and the weights that follow from them."""

from dataclasses import dataclass

import numpy as np
import pytest

from atrous.data.datasets import DatasetError, Sample
from atrous.data.stats import ClassCounts, count_classes, inverse_log, median_frequency
from atrous.labels import LabelSet


@dataclass
class Masks:
    """A dataset of given masks; None is a pair that can't be read."""

    masks: list[np.ndarray | None]
    name: str = "masks"
    labels: LabelSet = LabelSet(("a", "b", "never"))  # noqa: RUF009 - frozen

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Sample:
        mask = self.masks[index]
        if mask is None:
            raise DatasetError(f"{index}.jpg is 4×4 but its mask is 5×5")
        return Sample(np.zeros((*mask.shape, 3), np.uint8), mask, f"{index}.jpg")


def counts(pixels: list[int], surroundings: list[int]) -> ClassCounts:
    return ClassCounts(np.array(pixels), np.ones(len(pixels), np.int64), np.array(surroundings), 0)


def test_pixels_pictures_and_surroundings_are_counted() -> None:
    steps: list[tuple[int, int]] = []
    data = Masks([np.uint8([[0, 0, 1, 255]]), np.uint8([[0, 0, 0, 0], [0, 0, 0, 255]])])
    found = count_classes(data, lambda done, total: steps.append((done, total)))
    assert found.pixels.tolist() == [9, 1, 0]
    assert found.pictures.tolist() == [2, 1, 0]
    assert found.surroundings.tolist() == [10, 3, 0]
    assert found.ignored == 2
    assert found.pixels.dtype == found.pictures.dtype == found.surroundings.dtype == np.int64
    assert steps == [(1, 2), (2, 2)]


def test_a_pair_that_cannot_be_read_stops_the_count_with_its_error() -> None:
    with pytest.raises(DatasetError, match=r"1\.jpg is 4×4"):
        count_classes(Masks([np.zeros((2, 2), np.uint8), None]))


def test_median_frequency_is_the_median_over_the_class_s_own_share_of_its_pictures() -> None:
    weights = median_frequency(counts([80, 10, 5, 0], [100, 100, 20, 0]))  # frequencies 0.8, 0.1, 0.25
    np.testing.assert_allclose(weights, [0.25 / 0.8, 2.5, 1, 0])


def test_inverse_log_is_enet_s_formula() -> None:
    weights = inverse_log(counts([75, 25, 0], [100, 100, 0]))
    np.testing.assert_allclose(weights, [1 / np.log(1.77), 1 / np.log(1.27), 0])


def test_weights_of_an_empty_dataset_are_zero() -> None:
    nothing = counts([0, 0], [0, 0])
    assert median_frequency(nothing).tolist() == inverse_log(nothing).tolist() == [0, 0]
