"""Training with balanced sampling and copy-paste: it runs, resumes bit-exactly, and its settings are checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atrous.training import Progress, Recipe, RecipeError, train
from atrous.training.run_folder import load_state

MakeRecipe = Callable[..., Recipe]
BALANCED = {"data__sampling": "balanced", "data__rare_below": 0.9, "augment__copy_paste": 0.7, "log__save_minutes": 0}


class StopError(Exception):
    """A stand-in for a run that is killed."""


def weights(run: Path) -> dict[str, Any]:
    return load_state(run)[0]["model"]


def test_an_interrupted_balanced_run_resumes_bit_exactly(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(training__steps=5, **BALANCED)

    def stop(now: Progress) -> None:
        if now.step == 3:
            raise StopError

    train(recipe, tmp_path / "whole")
    with pytest.raises(StopError):
        train(recipe, tmp_path / "cut", on_step=stop)
    train(recipe, tmp_path / "cut", resume=True)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_balance_changes_what_is_seen(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for name, changes in (("uniform", {}), ("balanced", BALANCED)):
        found = losses.setdefault(name, [])
        recipe = make_recipe(training__steps=2, **changes)
        train(recipe, tmp_path / name, on_step=lambda now, found=found: found.append(now.loss))
    assert losses["uniform"] != losses["balanced"]


def test_copy_paste_of_whole_images_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="copy_paste needs crops of one size"):
        make_recipe(augment__copy_paste=0.5, augment__crop="whole")
