"""Trackers: TensorBoard gets losses, classes and images; unknown ones are refused before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

import atrous.training.tracking as tracking
from atrous.training.recipe import Recipe, RecipeError
from atrous.training.stages import train

MakeRecipe = Callable[..., Recipe]


def test_tensorboard_gets_losses_classes_and_images(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(
        make_recipe(data__val_split="val", training__epochs=2, log__trackers=["tensorboard"], log__every=1),
        tmp_path / "run",
    )
    events = EventAccumulator(str(tmp_path / "run/trackers/atrous")).Reload()
    scalars = events.Tags()["scalars"]
    assert {"train/loss", "train/lr", "validation/mean_iou", "validation/iou/red"} <= set(scalars)
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("samples")] == [2, 4]


def test_unknown_and_missing_trackers_are_refused(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"unknown tracker 'notebook'; there are: .*tensorboard"):
        train(make_recipe(log__trackers=["notebook"]), tmp_path / "run")
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(RecipeError, match="tensorboard is not installed; pip install tensorboard"):
        train(make_recipe(log__trackers=["tensorboard"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
