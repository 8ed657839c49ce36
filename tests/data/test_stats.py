"""Class frequencies and the weights that follow from them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atrous.data.contact_sheet import choose, contact_sheet
from atrous.data.dataset import Sample
from atrous.data.extras import Extras
from atrous.data.stats import ClassCounts, count_classes, inverse_log, measure, median_frequency
from atrous.errors import DatasetError
from atrous.labels import LabelSet
from atrous.training.recipe_file import load_recipe


@dataclass
class Masks:
    """A dataset of given masks; None is a pair that can't be read."""

    masks: list[np.ndarray | None]
    name: str = "masks"
    label_set: LabelSet = LabelSet(("a", "b", "never"))  # noqa: RUF009 - frozen
    extras: Extras = Extras()  # noqa: RUF009 - frozen

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Sample:
        mask = self.masks[index]
        if mask is None:
            raise DatasetError(f"{index}.jpg is 4×4 but its mask is 5×5")
        return Sample(np.zeros((*mask.shape, 3), np.uint8), mask, f"{index}.jpg")


def counts(pixels: list[int], surroundings: list[int]) -> ClassCounts:
    return ClassCounts(np.array(pixels), np.ones(len(pixels), np.int64), np.array(surroundings), 0)


def test_pixels_images_and_surroundings_are_counted() -> None:
    steps: list[tuple[int, int]] = []
    data = Masks([np.uint8([[0, 0, 1, 255]]), np.uint8([[0, 0, 0, 0], [0, 0, 0, 255]])])
    found = count_classes(data, lambda done, total: steps.append((done, total)))
    assert found.pixels.tolist() == [9, 1, 0]
    assert found.images.tolist() == [2, 1, 0]
    assert found.surroundings.tolist() == [10, 3, 0]
    assert found.ignored == 2
    assert found.pixels.dtype == found.images.dtype == found.surroundings.dtype == np.int64
    assert steps == [(1, 2), (2, 2)]


def test_a_pair_that_cannot_be_read_stops_the_count_with_its_error() -> None:
    with pytest.raises(DatasetError, match=r"1\.jpg is 4×4"):
        count_classes(Masks([np.zeros((2, 2), np.uint8), None]))


def test_median_frequency_is_the_median_over_the_class_s_own_share_of_its_images() -> None:
    weights = median_frequency(counts([80, 10, 5, 0], [100, 100, 20, 0]))  # frequencies 0.8, 0.1, 0.25
    np.testing.assert_allclose(weights, [0.25 / 0.8, 2.5, 1, 0])


def test_inverse_log_is_enet_s_formula() -> None:
    weights = inverse_log(counts([75, 25, 0], [100, 100, 0]))
    np.testing.assert_allclose(weights, [1 / np.log(1.77), 1 / np.log(1.27), 0])


def test_weights_of_an_empty_dataset_are_zero() -> None:
    nothing = counts([0, 0], [0, 0])
    assert median_frequency(nothing).tolist() == inverse_log(nothing).tolist() == [0, 0]


def test_stats_go_on_past_a_pair_that_cannot_be_read() -> None:
    data = Masks([np.uint8([[0, 0, 1, 255]]), None, np.zeros((3, 2), np.uint8), np.zeros((1, 4), np.uint8)])
    steps: list[tuple[int, int]] = []
    stats = measure(data, lambda done, total: steps.append((done, total)))
    assert stats.broken == ("1.jpg is 4×4 but its mask is 5×5",)
    assert stats.places == (0, 2, 3)
    assert stats.sizes == ((1, 4), (3, 2), (1, 4))
    assert stats.pixels.tolist() == [[2, 1, 0], [6, 0, 0], [4, 0, 0]]
    assert stats.counts.pixels.tolist() == [12, 1, 0]
    assert steps[-1] == (4, 4)
    said = stats.text()
    assert "sizes: 4×1 to 2×3, median 4×1" in said
    assert "most frequent: 4×1 (2), 2×3 (1)" in said
    assert "weight 0, since they never occur: never" in said
    facts = stats.to_dict()
    assert facts["sizes"] == [[1, 4, 2], [3, 2, 1]]
    assert facts["classes"][0]["median_frequency"] == pytest.approx(median_frequency(stats.counts)[0])


def test_small_and_rare_classes_are_named_with_a_setting_to_try() -> None:
    crack = np.zeros((10, 10), np.uint8)
    crack[0, 0] = 1
    said = measure(Masks([crack] + [0 * crack] * 9)).text()
    assert "few pixels: b (0.1 %); worth a trial: --set loss.class_weights=auto" in said
    assert "in few images: b (1); worth a trial: --set data.sampling=balanced" in said
    assert "worth a trial" not in measure(Masks([np.uint8([[0, 1]])])).text()
    assert load_recipe("folder_deeplabv3plus_lite0", ["loss.class_weights=auto"]).loss.class_weights == "auto"


def test_stats_of_nothing_that_can_be_read() -> None:
    stats = measure(Masks([None]))
    assert "masks: 0 images" in stats.text()
    assert stats.to_dict()["sizes"] == []


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(1, 8)), elements=st.integers(0, 3)))
def test_a_sheet_shows_every_class_that_occurs(pixels: np.ndarray) -> None:
    chosen = choose(pixels)
    assert chosen == sorted(set(chosen)) == choose(pixels.copy())
    assert min(len(pixels), 12) <= len(chosen) <= len(pixels)
    np.testing.assert_array_equal((pixels[chosen] > 0).any(axis=0), (pixels > 0).any(axis=0))


def test_a_sheet_has_rows_of_four_with_room_for_long_names() -> None:
    masks = [np.full((20 + number, 90), number % 2, np.uint8) for number in range(5)]
    few = contact_sheet(Masks(masks), [0, 1])
    assert few.dtype == np.uint8
    assert few.shape[1] == 2 * 320 + 3 * 12
    full = contact_sheet(Masks(masks), [0, 1, 2, 3, 4])
    assert full.shape[1] == 4 * 320 + 5 * 12
    assert full.shape[0] > 2 * few.shape[0] - 40
    long = contact_sheet(Masks(masks, label_set=LabelSet(("a very long name of a class " * 3, "b"))), [0])
    assert long.shape[1] > few.shape[1] / 2
