"""Frozen layers: up to a stride, batch norms, all except a few."""

from collections.abc import Callable

import pytest
from torch import nn

from atrous.data.opening import open_dataset
from atrous.models.base import SegmentationModel
from atrous.training.building import build_model
from atrous.training.freezing import freeze
from atrous.training.recipe import Recipe, RecipeError

MakeRecipe = Callable[..., Recipe]


def build(recipe: Recipe) -> SegmentationModel:
    return build_model(recipe, open_dataset(recipe.data.train, "train"))


def test_freezing_until_a_stride_stops_what_lies_upstream_and_no_more(make_recipe: MakeRecipe) -> None:
    model = build(make_recipe())
    freeze(model, 4, norms_of=None)
    trained = {name for name, p in model.backbone.net.named_parameters() if p.requires_grad}
    still = {name for name, p in model.backbone.net.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in still} == {"conv1", "bn1", "layer1"}
    assert {name.split(".")[0] for name in trained} == {"layer2", "layer3", "layer4"}
    with pytest.raises(RecipeError, match=r"freeze_until_stride: .*features at strides .* none at 3"):
        freeze(model, 3, norms_of=None)


def test_norms_freeze_in_the_backbone_or_everywhere(make_recipe: MakeRecipe) -> None:
    model = build(make_recipe(model__name="deeplabv3", model__options={"channels": 16}))
    norms = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    there = {name for name in norms if name.startswith("backbone.")}
    assert set() < there < norms
    for part, expected in ((model.backbone, there), (model, norms)):
        frozen = freeze(model, 0, norms_of=part)
        assert {name for name, m in model.named_modules() if m in frozen} == expected
