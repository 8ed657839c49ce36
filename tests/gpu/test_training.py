"""Training on a GPU: it learns and goes on, its models work anywhere, a step waits once, and too much is said so."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

import atrous
from atrous.data.opening import open_dataset
from atrous.training.dry_run import dry_run
from atrous.training.stages import train
from atrous.training.trainer import Trainer
from atrous.training.types import MemoryShortageError, Progress

from ..conftest import MakeRecipe
from .conftest import Unwaiting

pytestmark = pytest.mark.gpu

EVERYTHING: dict[str, Any] = {
    "training__ema": 0.9,
    "training__precision": "bfloat16",
    "loss__hard_share": 0.5,
    "loss__hard_below": 0.7,
    "loss__class_weights": "auto",
    "optimizer__name": "adamw",
    "optimizer__lr": 0.005,
    "optimizer__clip_norm": 10.0,
}
ATTENTION: dict[str, Any] = {
    "model__name": "attention_to_scale",
    "model__options": {"scales": [1, 0.5], "base_options": {"rate": 4}},
    "loss__resolution": "network",
    "training__accumulate": 2,
}


class Stop(Exception):  # noqa: N818 - a stand-in for Ctrl-C
    pass


def test_it_learns_and_the_model_works_on_the_cpu(
    make_recipe: MakeRecipe, squares: Path, tmp_path: Path, device: torch.device
) -> None:
    recipe = make_recipe(
        **EVERYTHING, data__val_split="val", data__workers=1, training__epochs=50, training__validate_every=25
    )
    losses: list[float] = []
    result = train(recipe, tmp_path / "run", on_step=lambda now: losses.append(now.loss))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert result.mean_iou is not None
    assert result.mean_iou > 0.7  # 0.82 to 0.83 over seeds; calling everything ground gives 0.17
    model, data = atrous.load(str(result.best)), open_dataset(f"folder:{squares}", "val")
    assert next(model.parameters()).device.type == "cpu"
    judged = atrous.evaluate(model, data, precision="bfloat16")
    assert judged.metrics.mean_iou == pytest.approx(result.mean_iou, abs=0.02)


def test_a_stopped_run_goes_on_where_it_was(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        training__epochs=4, training__ema=0.9, optimizer__name="adamw", optimizer__lr=0.003, log__samples=0
    )
    losses: dict[str, list[float]] = {"whole": [], "first": [], "second": []}

    def note(name: str, last: int = 8) -> Any:
        def on_step(now: Progress) -> None:
            losses[name].append(now.loss)
            if now.step == last and last < 8:
                raise Stop

        return on_step

    train(recipe, tmp_path / "whole", on_step=note("whole"))
    with pytest.raises(Stop):
        train(recipe, tmp_path / "halves", on_step=note("first", last=5))  # one step after the state of epoch 2
    train(recipe, tmp_path / "halves", resume=True, on_step=note("second"))
    # Not bit for bit as on the CPU: a GPU's sums come in any order.
    assert losses["first"][:4] + losses["second"] == pytest.approx(losses["whole"], rel=0.05)


@pytest.mark.parametrize("changes", [{}, EVERYTHING, ATTENTION], ids=["plain", "everything", "attention"])
def test_in_a_step_the_host_waits_once(
    changes: dict[str, Any], make_recipe: MakeRecipe, tmp_path: Path, unwaiting: Unwaiting, device: torch.device
) -> None:
    trainer = Trainer(make_recipe(**changes), tmp_path / "run")
    assert trainer.device.type == device.type
    trainer.introduce(trainer.class_weights())
    trainer.make_trainable()
    stream = trainer.batches(0)
    for step in range(2):  # libraries prepare themselves, the optimizer its state
        trainer.step(step, stream)
    waits, fetch = [], trainer._fetch

    def counted(numbers: torch.Tensor) -> list[float]:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        found = fetch(numbers)
        waits.append(len(found))
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        return found

    trainer._fetch = counted  # type: ignore[method-assign]
    with unwaiting():
        trainer.step(2, stream)
    assert len(waits) == 1


def test_a_dry_run_reports_peak_memory(make_recipe: MakeRecipe, tmp_path: Path, device: torch.device) -> None:
    (found,) = dry_run(make_recipe(**EVERYTHING), tmp_path)
    assert found.peak is None if device.type == "cpu" else found.peak > found.memory["activations"] > 0


def test_a_batch_that_does_not_fit_is_said_so(make_recipe: MakeRecipe, tmp_path: Path, device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("only a GPU's memory can be limited")
    trainer = Trainer(make_recipe(augment__crop=1025), tmp_path / "run")
    trainer.make_trainable()
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 64 * 2**20) / total)
    try:
        with pytest.raises(MemoryShortageError, match=r"4 images of 1025×1025 do not fit into the memory of cuda"):
            trainer.step(0, trainer.batches(0))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
