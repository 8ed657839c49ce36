"""The name of a model instead of a model is answered with how to load it; items that are not samples are named."""

from typing import Any

import numpy as np
import pytest

import atrous

IMAGE = np.zeros((20, 30, 3), np.uint8)


class Pairs:
    """A dataset that gives pairs where samples are expected."""

    label_set = atrous.LabelSet(("ground", "sky"))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return IMAGE, IMAGE[..., 0]


def test_a_name_is_not_a_model() -> None:
    with pytest.raises(atrous.AtrousError, match=r"atrous\.load\('mine'\)"):
        atrous.predict("mine", IMAGE)  # type: ignore[arg-type]
    with pytest.raises(atrous.AtrousError, match=r"atrous\.load\('mine'\)"):
        atrous.evaluate("mine", Pairs())  # type: ignore[arg-type]


def test_an_item_that_is_not_a_sample_is_named() -> None:
    model = atrous.create_model("deeplabv3", backbone="test_resnet", label_set=Pairs.label_set)
    with pytest.raises(atrous.AtrousError, match=r"Pairs, item 0: a tuple, expected atrous.data.Sample"):
        atrous.evaluate(model, Pairs())
