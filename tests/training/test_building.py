"""Building: frozen layers, optimizer groups, starting from other weights, the moving average."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from atrous.data.dataset import open_dataset
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel
from atrous.models.registry import create_model
from atrous.training.building import build_model, build_optimizer, freeze, update_average
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
def test_what_can_not_be_built_says_why(make_recipe: MakeRecipe, changes: dict[str, Any], says: str) -> None:
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


def test_the_average_moves_by_its_decay_and_copies_counters() -> None:
    net, average = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(net.weight, 2.0)
    nn.init.constant_(average.weight, 1.0)
    net.running_mean.fill_(4.0)  # type: ignore[union-attr, operator]
    net.num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]
    update_average(average, net, 0.9, step=10**6)
    torch.testing.assert_close(average.weight.data, torch.full((3,), 1.1))
    torch.testing.assert_close(average.running_mean, torch.full((3,), 0.4))
    assert average.num_batches_tracked == 7
    update_average(average, net, 0.9, step=0)  # early on the average follows quickly: (1 + 0) / (10 + 0) of it stays
    torch.testing.assert_close(average.weight.data, torch.full((3,), 0.1 * 1.1 + 0.9 * 2.0))


def test_the_average_of_equal_weights_is_bit_identical() -> None:
    net, average = nn.Linear(50, 50), nn.Linear(50, 50)
    average.load_state_dict(net.state_dict())
    for step in range(5):
        update_average(average, net, 0.998, step)
    assert torch.equal(average.weight, net.weight)
