"""The dry run: reports sizes and times, draws the first batch, and keeps nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import atrous.training.dry_run as dry_run_module
from atrous.models.backbones import weights
from atrous.models.backbones.fcn import make_classifier
from atrous.training.dry_run import dry_run
from atrous.training.recipe import Recipe, RecipeError, check_recipe
from atrous.training.stages import train
from atrous.training.trainer import Trainer
from atrous.training.types import NonFiniteLossError


def test_it_reports_shapes_memory_and_loss_and_keeps_nothing(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe(training__ema=0.9, optimizer__name="adamw")
    messages: list[str] = []
    (found,) = dry_run(recipe, tmp_path / "run", messages.append)
    assert found.shapes == {"batch": (4, 3, 65, 65), "main": (4, 4, 24, 24)}  # test_resnet works on 96×96
    assert found.memory["optimizer"] >= 2 * found.memory["gradients"] > 0
    assert found.memory["weights"] > 2 * found.memory["gradients"]  # the average, and statistics
    assert found.memory["activations"] > 4 * 4 * 65 * 65 * 4  # float32 logits at full size at the least
    assert found.steps == 4
    assert 0 < found.loss < 10
    assert found.peak is None or found.peak > 0
    assert any("8 images, 4 classes" in message for message in messages)
    with Image.open(found.image) as image:
        assert image.size == (130, 130)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry-run.jpg"]
    train(recipe, tmp_path / "run")  # the folder counts as unused


def test_memory_of_a_batch_is_extrapolated_from_two_images(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (found,) = dry_run(make_recipe(training__batch_size=8), tmp_path / "run")
    measured = dry_run_module._step
    trainer = Trainer(make_recipe(training__batch_size=8), tmp_path / "run")
    trainer.make_trainable()
    whole = measured(trainer, 0, next(trainer.batches(0)))
    assert whole.shapes == found.shapes
    assert whole.activations == pytest.approx(found.memory["activations"], rel=0.02)


def test_a_dry_run_needs_neither_weights_nor_a_network(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run asked the network")

    monkeypatch.setattr(weights, "is_reachable", refuse)
    messages: list[str] = []
    list(dry_run(make_recipe(model__backbone="resnet18", model__pretrained=True), tmp_path, messages.append))
    assert messages[0].startswith("random weights for now: the pretrained ones of resnet18 are not on this machine")
    with weights.without_downloads(), pytest.raises(weights.WeightsNotFoundError, match="'alexnet' are not on this"):
        make_classifier("alexnet", 3, True)


def test_a_batch_that_does_not_fit_has_the_parts_that_do(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = dry_run(make_recipe(), tmp_path / "run")
    assert found.accumulate is None
    rest = found.needed - found.memory["activations"]
    monkeypatch.setattr(dry_run_module, "_available", lambda _: rest + found.memory["activations"] // 3)
    (found,) = dry_run(make_recipe(), tmp_path / "run")
    assert found.accumulate == 4


def test_each_stage_starts_from_the_network_of_the_one_before(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    table = make_recipe(model__name="fcn32s", model__options={}, model__backbone="test_efficientnet").model_dump()
    table["stages"] = [
        {"name": "coarse"},
        {"name": "fine", "changes": {"model.name": "fcn8s", "training.epochs": 5, "augment.crop": 97}},
    ]
    messages: list[str] = []
    coarse, fine = dry_run(check_recipe(table, "test"), tmp_path / "run", messages.append)
    assert [message for message in messages if message.startswith("stage ")] == [
        "stage coarse (1 of 2)",
        f"stage fine (2 of 2), from {tmp_path / 'run/stages/coarse/best'}",
    ]
    assert (coarse.shapes["batch"], fine.shapes["batch"]) == ((4, 3, 65, 65), (4, 3, 97, 97))
    assert (coarse.steps, fine.steps) == (4, 10)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["dry-run-coarse.jpg", "dry-run-fine.jpg"]
    table["stages"].append({"name": "other", "changes": {"model.backbone": "test_resnet"}})
    with pytest.raises(RecipeError, match=r"model\.start_from"):
        list(dry_run(check_recipe(table, "test"), tmp_path / "run"))


def test_a_diverged_batch_is_drawn_in_the_folder_of_the_run(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="diverged-00000"):
        list(dry_run(make_recipe(optimizer__lr=1e38), tmp_path / "run"))
    assert any(list(folder.glob("*.jpg")) for folder in (tmp_path / "run").glob("diverged-*"))
