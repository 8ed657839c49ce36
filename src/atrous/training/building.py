"""The model that a recipe describes."""

from __future__ import annotations

from dataclasses import replace

from atrous.data.dataset import Dataset, dataset_extras, dataset_name
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model
from atrous.models.loading import load
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.types import OnMessage


def build_model(recipe: Recipe, dataset: Dataset, on_message: OnMessage | None = None) -> SegmentationModel:
    """Build the recipe's model for a dataset's classes and channels, in train mode.

    Args:
        recipe: of the training.
        dataset: the training data.
        on_message: called with a line about the weights that the training starts from.

    Raises:
        RecipeError: options or a backbone that the architecture can't use, heads that the dataset has no masks for, or
            ``start_from`` names another network.
    """
    section = recipe.model
    _check_heads(section.options.get("heads") or {}, dataset)
    try:
        model = create_model(
            section.name,
            backbone=section.backbone,
            label_set=dataset.label_set,
            output_stride=section.output_stride,
            in_channels=dataset_extras(dataset).channels,
            pretrained=section.pretrained if not section.start_from else False,
            **section.options,
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {error}") from error
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


def _check_heads(heads: object, dataset: Dataset) -> None:
    available = {name: len(masks.form.label_set) for name, masks in dataset_extras(dataset).masks.items()}
    if not isinstance(heads, dict) or any(available.get(name) != classes for name, classes in heads.items()):
        has = ", ".join(f"{name} = {classes}" for name, classes in available.items())
        raise RecipeError(
            f"model.options.heads: each head learns from masks of its own; {dataset_name(dataset)} has "
            + (f"heads = {{ {has} }}, not {heads}" if has else "only the main masks")
        )
