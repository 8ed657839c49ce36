"""The data of a training: what it trains and validates on, its augmentation, and the class weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atrous.data.augment import Augment, Augmentation
from atrous.data.balance import CopyPaste, class_presence, repeat_factors
from atrous.data.dataset import Dataset, dataset_extras, dataset_name, require_dataset, subset
from atrous.data.doctor.check import SAMPLE, require_healthy
from atrous.data.doctor.in_memory import check_datasets
from atrous.data.findings import errors_of, tally
from atrous.data.opening import open_dataset
from atrous.data.sources.spec import with_options
from atrous.data.stats import count_classes, inverse_log, median_frequency
from atrous.errors import DatasetError
from atrous.training.downloads import check_place
from atrous.training.functions import import_function
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.sections import DataSection


def open_data(
    recipe: Recipe, train_data: Dataset | None = None, val_data: Dataset | None = None
) -> tuple[Dataset, Dataset | None]:
    """Check and open the data that a recipe trains on, and those it validates on, if any.

    Args:
        recipe: of the training.
        train_data: training data in place of the recipe's. Without ``val_data`` and ``data.val`` there is then no
            validation.
        val_data: validation data in place of the recipe's.

    Raises:
        DatasetError: the data can't be used as they are.
        RecipeError: there are no training data, or the validation data have other classes or channels.
    """
    data = _with_options(recipe.data)
    if train_data is None and not data.train:
        raise RecipeError("data.train: no training data; set it, for example to folder:PATH")
    val_spec = "" if data.val_split == "none" else data.val or (data.train if train_data is None else "")
    if train_data is None:
        check_place("data.train", data.train, [data.train_split])
    if val_data is None and val_spec:
        check_place("data.val", val_spec, [data.val_split])
    if train_data is None:
        require_healthy(data.train, [data.train_split, *([data.val_split] if val_spec == data.train else [])])
        train_set = open_dataset(data.train, data.train_split)
    else:
        train_set = _require_healthy(train_data, "train_data")
    if val_data is not None:
        val_set = _require_healthy(val_data, "val_data")
    elif val_spec:
        if train_data is not None or val_spec != data.train:
            require_healthy(val_spec, [data.val_split])
        val_set = open_dataset(val_spec, data.val_split)
    else:
        return train_set, None
    _check_alike(train_set, val_set)
    return train_set, subset(val_set, data.val_images) if data.val_images else val_set


def _with_options(data: DataSection) -> DataSection:
    """The section with its class table and its rule of overlap in the specifications."""
    specs = {key: spec for key, spec in (("train", data.train), ("val", data.val)) if spec}
    options = {"overlap": data.overlap, "classes": data.classes}
    return data.model_copy(update={key: with_options(spec, **options) for key, spec in specs.items()})


def _require_healthy(dataset: Dataset, argument: str) -> Dataset:
    """Look at some samples of a dataset that was given as an object.

    Raises:
        DatasetError: it is not a dataset, or has errors, as the doctor reports them.
    """
    require_dataset(dataset, argument)
    findings = check_datasets({argument: dataset}, most=SAMPLE).findings
    if errors := errors_of(findings):
        blocks = "\n\n".join(finding.block() for finding in errors)
        raise DatasetError(f"{argument} ({dataset_name(dataset)}) can't be used, {tally(errors)}:\n\n{blocks}")
    channels, expected = np.shape(dataset[0].image)[2], dataset_extras(dataset).channels
    if channels != expected:
        raise DatasetError(
            f"{argument}: images have {channels} channels; without `extras`, {expected} are expected: "
            f"extras = Extras(images=ImageForm({channels}, color=False))"
        )
    return dataset


def _check_alike(train_set: Dataset, val_set: Dataset) -> None:
    if val_set.label_set.names != train_set.label_set.names:
        raise RecipeError(
            f"data.val has other classes ({', '.join(val_set.label_set.names)}) "
            f"than data.train ({', '.join(train_set.label_set.names)})"
        )
    one, other = dataset_extras(train_set), dataset_extras(val_set)
    black = (0.0,) * one.images.channels
    if one.form != other.form or other.means(black) != one.means(black):
        names = f"data.val has images of other channels ({dataset_name(val_set)}: {other.form}) than data.train"
        raise RecipeError(f"{names} ({dataset_name(train_set)}: {one.form})")


def find_presence(recipe: Recipe, dataset: Dataset) -> NDArray[np.bool_] | None:
    """Which classes each image shows, bool ``(N, C)``, if the recipe balances classes; None if it does not."""
    needed = recipe.data.sampling == "balanced" or recipe.augment.copy_paste > 0
    return class_presence(dataset) if needed else None


def sampling_weights(recipe: Recipe, presence: NDArray[np.bool_] | None) -> NDArray[np.float64] | None:
    """How often each image is drawn, relative to the others; None for each once."""
    if recipe.data.sampling == "uniform" or presence is None:
        return None
    return repeat_factors(presence, recipe.data.rare_below)


def make_augmentation(
    recipe: Recipe, dataset: Dataset, fill: tuple[float, ...], presence: NDArray[np.bool_] | None = None
) -> Augment:
    """The recipe's augmentation.

    Args:
        recipe: of the training.
        dataset: that it is for.
        fill: value of padding, 0–255, one per channel.
        presence: as :func:`find_presence` returns it.
    """
    if recipe.augment.function:
        return import_function(recipe.augment.function)
    settings = recipe.augment.model_dump(exclude={"function", "copy_paste"})
    if recipe.augment.crop == "whole":
        settings["crop"] = None
    augmentation = Augmentation(**settings, fill=fill, colored=dataset_extras(dataset).colored)
    if recipe.augment.copy_paste and presence is not None:
        return CopyPaste.of_rare_classes(augmentation, dataset, presence, recipe.augment.copy_paste)
    return augmentation


def given_class_weights(recipe: Recipe, dataset: Dataset) -> list[float] | None:
    """The class weights that a recipe lists; None if it lists none.

    Raises:
        RecipeError: not one weight per class.
    """
    weights = recipe.loss.class_weights
    if isinstance(weights, str):
        return None
    if len(weights) != len(dataset.label_set):
        raise RecipeError(f"loss.class_weights has {len(weights)} weights, {len(dataset.label_set)} classes expected")
    return list(weights)


def count_class_weights(rule: str, dataset: Dataset) -> list[float]:
    """Class weights from the class frequencies in a dataset; every mask is read.

    Args:
        rule: ``auto`` (median frequency) or ``inverse_log``.
        dataset: the training data.
    """
    weigh = median_frequency if rule == "auto" else inverse_log
    return [round(float(weight), 6) for weight in weigh(count_classes(dataset))]
