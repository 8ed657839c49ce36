"""The model that a recipe describes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from atrous.bundle import BUNDLE, bundled
from atrous.data.dataset import Dataset, dataset_extras, dataset_name
from atrous.models.backbones.weights import WeightsNotFoundError, installed_packages, without_downloads
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model
from atrous.models.loading import load
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.sections import ModelSection
from atrous.training.types import OnMessage


def build_model(
    recipe: Recipe, dataset: Dataset, on_message: OnMessage | None = None, download: bool = True
) -> SegmentationModel:
    """Build the recipe's model for a dataset's classes and channels, in train mode.

    Args:
        recipe: of the training.
        dataset: the training data.
        on_message: called with a line about the weights that the training starts from.
        download: whether pretrained weights may be downloaded; otherwise those that are not on this machine are
            replaced by random ones.

    Raises:
        RecipeError: options or a backbone that the architecture can't use, heads that the dataset has no masks for, or
            ``start_from`` names another network.
        WeightsNotFoundError: pretrained weights that can't be found or read; the message says what can be set instead.
    """
    section = recipe.model
    _check_heads(section.options.get("heads") or {}, dataset)
    try:
        model = _create(section, dataset, download, on_message)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
    except WeightsNotFoundError as error:
        ways = "".join(f"\n  --set {way}" for way in other_weights(section))
        raise WeightsNotFoundError(f"{error}\nIn a recipe:{ways}") from error
    means = dataset_extras(dataset).means(model.preprocessing.mean[:3])
    model.preprocessing = replace(model.preprocessing, mean=means)
    if section.start_from:
        source = load(section.start_from)
        try:
            transferred = model.start_from(source)
        except ValueError as error:
            raise RecipeError(f"model.start_from: '{section.start_from}' is {error}") from error
        if on_message:
            on_message(f"started from {section.start_from}: {transferred}")
    return model.train()


def _create(section: ModelSection, dataset: Dataset, download: bool, on_message: OnMessage | None) -> SegmentationModel:
    build = partial(
        create_model,
        section.name,
        backbone=section.backbone,
        label_set=dataset.label_set,
        output_stride=section.output_stride,
        in_channels=dataset_extras(dataset).channels,
        **section.options,
    )
    pretrained = section.pretrained if not section.start_from else False
    if download or pretrained is not True:
        return build(pretrained=pretrained)
    try:
        with without_downloads():
            return build(pretrained=True)
    except WeightsNotFoundError:
        if on_message:
            on_message(
                f"random weights for now: the pretrained ones of {section.backbone} are not on this machine, and the "
                "training itself will download them"
            )
        return build(pretrained=False)


def other_weights(section: ModelSection) -> list[str]:
    """The settings with which a recipe needs no download, each with a remark."""
    ways = ["model.pretrained=FILE: weights that you have"]
    for name in bundled():
        config = json.loads((BUNDLE / name / "config.json").read_text(encoding="utf-8"))
        if (config["architecture"], config["backbone"]) == (section.name, section.backbone):
            ways.append(f"model.start_from={name}: a bundled model of this network, if its options are the same")
    for backbone, package in installed_packages().items():
        if backbone != section.backbone:
            ways.append(f"model.backbone={backbone}: another network, whose weights are installed ({package})")
    return [*ways, "model.pretrained=false: random weights; a good model then takes much longer"]


def _check_heads(heads: object, dataset: Dataset) -> None:
    available = {name: len(masks.form.label_set) for name, masks in dataset_extras(dataset).masks.items()}
    if not isinstance(heads, dict) or any(available.get(name) != classes for name, classes in heads.items()):
        has = ", ".join(f"{name} = {classes}" for name, classes in available.items())
        raise RecipeError(
            f"model.options.heads: each head learns from masks of its own; {dataset_name(dataset)} has "
            + (f"heads = {{ {has} }}, not {heads}" if has else "only the main masks")
        )
