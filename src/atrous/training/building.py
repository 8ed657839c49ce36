"""The model that a recipe describes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from atrous.bundle import BUNDLE, bundled
from atrous.data.channel_stats import channel_stats
from atrous.data.dataset import Dataset, dataset_extras, dataset_name
from atrous.inference.taken import image_form
from atrous.models.backbones.weights import WeightsNotFoundError, installed_packages, without_downloads
from atrous.models.base import Preprocessing, SegmentationModel
from atrous.models.create import create_model
from atrous.models.loading import load
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.sections import ModelSection
from atrous.training.types import OnMessage


def build_model(
    recipe: Recipe,
    dataset: Dataset,
    on_message: OnMessage | None = None,
    download: bool = True,
    preprocessing: Preprocessing | None = None,
) -> SegmentationModel:
    """Build the recipe's model for a dataset's classes and channels, in train mode.

    Args:
        recipe: of the training.
        dataset: the training data.
        on_message: called with a line about the weights that the training starts from.
        download: whether pretrained weights may be downloaded; otherwise those that are not on this machine are
            replaced by random ones.
        preprocessing: of a run that is resumed; by default the recipe's rule says what it is.

    Raises:
        DatasetError, ImageError: the channels are to be measured, and an image can't be read.
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
    model.preprocessing = preprocessing or _preprocessing(recipe, dataset, model, on_message)
    if section.start_from:
        source = load(section.start_from)
        _check_images(section.start_from, source, dataset)
        try:
            transferred = model.start_from(source)
        except ValueError as error:
            raise RecipeError(f"model.start_from: '{section.start_from}' is {error}") from error
        if on_message:
            on_message(f"started from {section.start_from}: {transferred}")
    return model.train()


def _preprocessing(
    recipe: Recipe, dataset: Dataset, model: SegmentationModel, on_message: OnMessage | None
) -> Preprocessing:
    """What the images are normalised by, as ``data.normalization`` says; a model that is started from has its own."""
    extras, rule = dataset_extras(dataset), recipe.data.normalization
    images = extras.images
    if rule == "pretrained" and images.dtype != "uint8":
        raise RecipeError(
            f'data.normalization = "pretrained" is for 8-bit images, and {dataset_name(dataset)} has {images}: set it '
            'to "measured"'
        )
    if rule == "pretrained" or (rule == "auto" and images.is_rgb) or recipe.model.start_from:
        return replace(model.preprocessing, mean=extras.means(model.preprocessing.mean[: images.channels]))
    if on_message:
        on_message(f"measuring the channels of {dataset_name(dataset)} for their normalisation")
    found = channel_stats(dataset)
    scale = 255.0 if images.dtype == "uint8" else 1.0
    return Preprocessing(
        tuple(float(mean) / scale for mean in found.mean),
        tuple(float(std or 1) / scale for std in found.std),  # of a channel that never varies
        images.dtype,
        tuple((float(low), float(high)) for low, high in zip(found.low, found.high, strict=True)),
    )


def _check_images(name: str, source: SegmentationModel, dataset: Dataset) -> None:
    """Refuse to start from a model of other images."""
    needed, taken = dataset_extras(dataset).form, image_form(source)
    if (needed.channels, needed.dtype) != (taken.channels, taken.dtype):
        raise RecipeError(
            f"model.start_from: '{name}' takes {taken}, and {dataset_name(dataset)} has {needed}; leave it out "
            "(pretrained weights of a backbone are widened to any number of channels), or start from a model of such "
            "images"
        )


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
