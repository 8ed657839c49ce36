"""Data of one's own: any dataset trains and validates, with any augmentation; what does not fit is an error."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atrous.data.dataset import Sample
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError
from atrous.labels import LabelSet
from atrous.models.loading import load
from atrous.training.dry_run import dry_run
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.stages import train

MakeRecipe = Callable[..., Recipe]


class Halves:
    """Images whose brighter half is class 1; nothing else that a dataset of this package has."""

    label_set = LabelSet(("dark", "bright"))

    def __init__(self, length: int = 6) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        mask = np.zeros((70, 80), np.uint8)
        mask[:, 40:] = 1
        image = (60 + 120 * mask[..., None] + random.integers(0, 40, (70, 80, 3))).astype(np.uint8)
        return Sample(image, mask, f"{index}.png")


def losses(recipe: Recipe, run: Path, **options: Any) -> list[float]:
    found: list[float] = []
    train(recipe, run, on_step=lambda now: found.append(now.loss), **options)
    return found


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(data__train="", data__val_split="val", optimizer__name="adamw", training__steps=4)


def test_any_dataset_trains_and_validates(recipe: Recipe, tmp_path: Path) -> None:
    seen: list[int] = []
    messages: list[str] = []
    result = train(
        recipe,
        tmp_path / "run",
        train_data=Halves(),
        val_data=Halves(3),
        on_validation=lambda _, validation: seen.append(validation.evaluation.images),
        on_message=messages.append,
    )
    assert load(result.best).label_set.names == ("dark", "bright")
    assert set(seen) == {3}
    assert "data: Halves, 6 images, 2 classes; validation: Halves, 3 images" in messages


def test_ones_own_training_data_have_no_validation_unless_it_is_given(recipe: Recipe, tmp_path: Path) -> None:
    assert train(recipe, tmp_path / "run", train_data=Halves()).mean_iou is None


def test_a_share_of_the_validation_data_is_spread_evenly(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(data__val_images=2, data__val_split="val", training__steps=1)
    messages: list[str] = []
    train(recipe, tmp_path / "run", train_data=Halves(), val_data=Halves(5), on_message=messages.append)
    assert "validation: Halves (2 of 5), 2 images" in messages[1]


def test_a_dataset_given_as_an_object_trains_as_one_named_in_the_recipe(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    named = make_recipe(training__epochs=0.5)
    data = open_dataset(named.data.train, "train")
    given = make_recipe(training__epochs=0.5, data__train="")
    assert losses(given, tmp_path / "given", train_data=data) == losses(named, tmp_path / "named")


def test_a_dry_run_takes_the_same_data(recipe: Recipe, tmp_path: Path) -> None:
    (found,) = dry_run(recipe, tmp_path / "run", train_data=Halves(), augmentation=corner)
    assert found.shapes["batch"] == (4, 3, 64, 64)


def corner(sample: Sample, random: np.random.Generator) -> Sample:
    top, left = random.integers(0, 6), random.integers(0, 16)
    place = np.s_[top : top + 64, left : left + 64]
    return Sample(sample.image[place], sample.mask[place], sample.name)


def test_an_augmentation_of_ones_own_is_an_argument_or_named_in_the_recipe(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_augmentations", SimpleNamespace(corner=corner))
    plain = make_recipe(training__steps=2)
    named = make_recipe(training__steps=2, augment__function="my_augmentations:corner")
    messages: list[str] = []
    first = losses(plain, tmp_path / "argument", train_data=Halves(), augmentation=corner, on_message=messages.append)
    assert "4 images at the size of corner" in messages[2]
    messages.clear()
    second = losses(named, tmp_path / "named", train_data=Halves(), on_message=messages.append)
    assert first == second
    assert first != losses(plain, tmp_path / "plain", train_data=Halves())
    assert "4 images at the size of my_augmentations:corner" in messages[2]


def with_sample(**changes: Any) -> Halves:
    sample = Halves()[0]

    class Changed(Halves):
        def __getitem__(self, index: int) -> Sample:
            return Sample(**({"image": sample.image, "mask": sample.mask, "name": "a"} | changes))

    return Changed()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            object(),
            "train_data: a dataset has label_set, __len__ and __getitem__; object has no label_set and no __len__",
        ),
        (Halves(0), "'train_data' has no samples"),
        (with_sample(mask=np.full((70, 80), 7, np.uint8)), r"(?s)train_data \(Changed\) can't be used.*7"),
        (with_sample(mask=np.zeros((70, 80))), r"its mask is float64 \(70, 80\), expected uint8 \(H, W\)"),
        (with_sample(mask=np.zeros((80, 70), np.uint8)), r"(?s)can't be used.*80×70, its mask .* 70×80"),
        (
            with_sample(image=np.zeros((70, 80, 4), np.uint8)),
            "images have 4 channels; without `extras`, 3 are expected",
        ),
        (with_sample(image=np.zeros((70, 80, 3))), "its image is float64"),
    ],
)
def test_data_that_do_not_fit_are_an_error_before_training(
    recipe: Recipe, tmp_path: Path, data: Any, says: str
) -> None:
    with pytest.raises(DatasetError, match=says):
        train(recipe, tmp_path / "run", train_data=data)
    assert not (tmp_path / "run").exists()


def test_without_data_the_setting_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.train: no training data; set it, for example to folder:PATH"):
        train(recipe, tmp_path / "run")
