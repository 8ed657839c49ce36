"""The data of a training: what a recipe trains and validates on, and the class weights counted from it."""

from __future__ import annotations

from atrous.data.dataset import Dataset, dataset_extras, dataset_name, subset
from atrous.data.doctor.check import require_healthy
from atrous.data.opening import open_dataset
from atrous.data.stats import count_classes, inverse_log, median_frequency
from atrous.training.recipe import Recipe, RecipeError


def open_data(recipe: Recipe) -> tuple[Dataset, Dataset | None]:
    """Check and open the data that a recipe trains on, and those it validates on, if any.

    Raises:
        DatasetError: the data can't be used as they are.
        RecipeError: the validation data have other classes or channels.
    """
    data = recipe.data
    val = None if data.val_split == "none" else data.val or data.train
    together = [data.train_split, data.val_split] if val == data.train else [data.train_split]
    require_healthy(data.train, together)
    train_set = open_dataset(data.train, data.train_split)
    if val is None:
        return train_set, None
    if val != data.train:
        require_healthy(val, [data.val_split])
    val_set = open_dataset(val, data.val_split)
    _check_alike(train_set, val_set)
    return train_set, subset(val_set, data.val_images) if data.val_images else val_set


def _check_alike(train_set: Dataset, val_set: Dataset) -> None:
    if val_set.label_set.names != train_set.label_set.names:
        raise RecipeError(
            f"data.val has other classes ({', '.join(val_set.label_set.names)}) "
            f"than data.train ({', '.join(train_set.label_set.names)})"
        )
    black = (0.0, 0.0, 0.0)
    if dataset_extras(val_set).means(black) != dataset_extras(train_set).means(black):
        names = f"data.val has images of other channels ({dataset_name(val_set)}) than data.train"
        raise RecipeError(f"{names} ({dataset_name(train_set)})")


def given_class_weights(recipe: Recipe, dataset: Dataset) -> list[float] | None:
    """The class weights that a recipe lists; None where it lists none.

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
    """Class weights from the class frequencies in a dataset, of which every mask is read.

    Args:
        rule: ``auto`` (median frequency) or ``inverse_log``.
        dataset: the training data.
    """
    weigh = median_frequency if rule == "auto" else inverse_log
    return [round(float(weight), 6) for weight in weigh(count_classes(dataset))]
