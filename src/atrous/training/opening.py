"""The data of a training."""

from __future__ import annotations

from atrous.data.dataset import PairedDataset, open_dataset
from atrous.data.doctor.check import require_healthy
from atrous.training.recipe import Recipe, RecipeError


def open_data(recipe: Recipe) -> tuple[PairedDataset, PairedDataset | None]:
    """What a recipe trains on, and what it validates on, if anything; looked over before.

    Raises:
        DatasetError: the data are not as they should be.
        RecipeError: those to validate on have other classes or channels.
    """
    data = recipe.data
    judge = None if data.val_split == "none" else data.val or data.train
    together = [data.train_split, data.val_split] if judge == data.train else [data.train_split]
    require_healthy(data.train, together)
    train_set = open_dataset(data.train, data.train_split)
    if judge is None:
        return train_set, None
    if judge != data.train:
        require_healthy(judge, [data.val_split])
    val_set = open_dataset(judge, data.val_split)
    if val_set.label_set.names != train_set.label_set.names:
        raise RecipeError(
            f"data.val has other classes ({', '.join(val_set.label_set.names)}) "
            f"than data.train ({', '.join(train_set.label_set.names)})"
        )
    black = (0.0, 0.0, 0.0)
    if val_set.extras.means(black) != train_set.extras.means(black):
        raise RecipeError(f"data.val has images of other channels ({judge}) than data.train ({data.train})")
    return train_set, val_set.some(data.val_images) if data.val_images else val_set
