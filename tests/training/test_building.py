"""Building the model of a recipe, with pretrained weights or those of another model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atrous.data.opening import open_dataset
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model
from atrous.training.building import build_model
from atrous.training.recipe import Recipe, RecipeError

MakeRecipe = Callable[..., Recipe]


def build(recipe: Recipe) -> SegmentationModel:
    return build_model(recipe, open_dataset(recipe.data.train, "train"))


def test_the_network_has_the_datasets_classes_and_trains(make_recipe: MakeRecipe) -> None:
    model = build(make_recipe(model__output_stride=8))
    assert model.label_set.names == ("ground", "red", "green", "blue")
    assert model.output_stride == 8
    assert model.training


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__options": {"width": 3}}, "model: 'deeplabv3plus' has no option width"),
        ({"model__backbone": "resnet_none"}, "model: timm has no model 'resnet_none'"),
        ({"model__start_from": "nobody"}, "no model 'nobody'"),
    ],
)
def test_what_can_not_be_built_is_an_error_with_the_reason(
    make_recipe: MakeRecipe, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        build(make_recipe(**changes))


OPTIONS = {"channels": 16, "low_level_channels": 8, "rates": [1, 2]}


def saved(folder: Path, **options: Any) -> SegmentationModel:
    labels = LabelSet.numbered(options.pop("num_classes", 7))
    model = create_model("deeplabv3plus", backbone="test_resnet", label_set=labels, **(OPTIONS | options))
    model.preprocessing = type(model.preprocessing)((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    model.save(folder)
    return model


@pytest.mark.parametrize("num_classes", [4, 7])
def test_start_from_takes_all_weights_but_a_classifier_of_other_classes(
    make_recipe: MakeRecipe, tmp_path: Path, num_classes: int
) -> None:
    source = saved(tmp_path / "source", num_classes=num_classes).state_dict()
    model = build(make_recipe(model__start_from=str(tmp_path / "source")))
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    new = {key for key, value in model.state_dict().items() if not torch.equal(value, source[key])}
    assert new == ({"classifier.weight", "classifier.bias"} if num_classes == 7 else set())


def test_start_from_another_network_says_so(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    saved(tmp_path / "source", channels=24)
    with pytest.raises(RecipeError, match=r"start_from: .*is another network \(deeplabv3plus on test_resnet\)"):
        build(make_recipe(model__start_from=str(tmp_path / "source")))
