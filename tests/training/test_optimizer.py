"""The optimizer's parameter groups: their learning rates and weight decay."""

from collections.abc import Callable

from torch import nn

from atrous.data.opening import open_dataset
from atrous.models.base import SegmentationModel
from atrous.training.building import build_model
from atrous.training.freezing import freeze
from atrous.training.optimizer import build_optimizer
from atrous.training.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


def build(recipe: Recipe) -> SegmentationModel:
    return build_model(recipe, open_dataset(recipe.data.train, "train"))


def test_groups_have_their_rate_and_norms_and_biases_no_decay(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(optimizer__backbone_lr=0.001, optimizer__weight_decay=0.02)
    model = build(recipe)
    freeze(model, 4, norms_of=None)
    groups = build_optimizer(recipe, model).param_groups
    backbone = {id(p) for p in model.backbone.parameters()}
    place = {id(p): group for group in groups for p in group["params"]}
    assert len(place) == sum(len(group["params"]) for group in groups)
    assert set(place) == {id(p) for p in model.parameters() if p.requires_grad}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                group = place[id(parameter)]
                bare = name == "bias" or isinstance(module, nn.BatchNorm2d)
                assert group["weight_decay"] == (0 if bare else 0.02)
                assert group["base_lr"] == (0.001 if id(parameter) in backbone else 0.05)


def test_depthwise_weights_decay_unless_the_recipe_spares_them(make_recipe: MakeRecipe) -> None:
    for decays in (True, False):
        recipe = make_recipe(
            model__name="deeplabv3plus",
            model__backbone="test_efficientnet",
            model__options={"separable": True, "channels": 16},
            optimizer__weight_decay=0.02,
            optimizer__depthwise_decay=decays,
        )
        model = build(recipe)
        place = {id(p): group for group in build_optimizer(recipe, model).param_groups for p in group["params"]}
        depthwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
        assert len(depthwise) > 5
        for module in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
            spared = module in depthwise and not decays
            assert place[id(module.weight)]["weight_decay"] == (0 if spared else 0.02)


def test_biases_of_convolutions_may_learn_at_another_rate(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(optimizer__backbone_lr=0.001, optimizer__bias_factor=2)
    model = build(recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        names[id(p)]: group["base_lr"] for group in build_optimizer(recipe, model).param_groups for p in group["params"]
    }
    assert rates["classifier.bias"] == 2 * rates["classifier.weight"] == 0.1
    assert rates["backbone.net.bn1.bias"] == rates["backbone.net.bn1.weight"] == 0.001
