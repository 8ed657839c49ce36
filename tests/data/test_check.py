"""Looking a dataset over: counts, sizes, and pairs that cannot be read."""

from dataclasses import dataclass

import numpy as np

from atrous.data.check import ClassCount, check
from atrous.data.datasets import DatasetError, Sample
from atrous.labels import LabelSet


@dataclass
class Three:
    name: str = "three"
    labels: LabelSet = LabelSet(("a", "b", "never"))  # noqa: RUF009 - frozen

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise DatasetError("1.jpg is 4×4 but its mask is 5×5")
        mask = np.full((2 + index, 5), index // 2, np.uint8)
        mask[0] = 255
        return Sample(np.zeros((*mask.shape, 3), np.uint8), mask, f"{index}.jpg")


def test_classes_sizes_and_broken_pairs_are_counted() -> None:
    steps: list[tuple[int, int]] = []
    result = check(Three(), lambda done, total: steps.append((done, total)))
    assert result.pictures == 2
    assert result.broken == ("1.jpg is 4×4 but its mask is 5×5",)
    assert result.classes == (ClassCount("a", 1, 5), ClassCount("b", 1, 15), ClassCount("never", 0, 0))
    assert result.ignored == 10
    assert (result.smallest, result.largest) == ((2, 5), (4, 5))
    assert steps == [(1, 3), (2, 3), (3, 3)]
