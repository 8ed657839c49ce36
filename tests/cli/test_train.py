"""train."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def test_train_hands_the_checked_recipe_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    from atrous.training import stages, types

    recipe = tmp_path / "r.toml"
    recipe.write_text('[data]\ntrain = "folder:x"\n')
    calls: list[tuple[Any, ...]] = []

    def train(recipe: Any, out: Path, *, resume: bool, on_step: Any, on_message: Any) -> Any:
        calls.append((recipe.training.epochs, out, resume))
        on_message("40 steps of 8 images")
        on_step(types.Progress(1, 2, 0.5, 0.01, 1.0, 3.0, 0.1))
        on_message("step 1: mean IoU 50.00 %")
        return types.Result(out / "best", out / "last", 0.5)

    monkeypatch.setattr(stages, "train", train)
    result = run("train", recipe, "--out", tmp_path / "run", "--set", "training.epochs=3", "--resume")
    assert result.exit_code == 0, result.output
    assert calls == [(3, tmp_path / "run", True)]
    assert f"best model: {tmp_path / 'run/best'}, mean IoU 50.00 %" in result.stdout
    assert "step 1: mean IoU 50.00 %" in result.stderr
    assert "40 steps of 8 images" in result.stderr


def test_a_stopped_training_says_where_and_is_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    from atrous.training import stages, types

    def train(*_: Any, **__: Any) -> Any:
        raise types.Stopped("stopped after step 3 of 6; --resume continues from there")

    monkeypatch.setattr(stages, "train", train)
    (tmp_path / "r.toml").write_text('[data]\ntrain = "folder:x"\n')
    (tmp_path / "run").mkdir()
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert "stopped after step 3 of 6" in result.stderr
    (tmp_path / "run").rmdir()
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert "has been removed, so that there is nothing to resume" in result.stderr
    assert "continues" not in result.stderr


def test_a_dry_run_prints_shapes_memory_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    from atrous.training import dry_run as dry_run_module

    def dry_run(_: Any, out: Path, on_message: Any) -> Any:
        on_message("40 steps of 8 images")
        shapes = {"batch": (8, 3, 65, 65), "main": (8, 4, 17, 17)}
        yield dry_run_module.DryRun(shapes, {"weights": 4_000_000}, None, 3_000_000, 2, 1.5, 12_000, 60, out / "x.jpg")

    monkeypatch.setattr(dry_run_module, "dry_run", dry_run)
    (tmp_path / "r.toml").write_text('[data]\ntrain = "folder:x"\n')
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    for said in ("40 steps", "main: 8 × 4 × 17 × 17", "weights 4 MB", "60 steps: about 8.33 days", "x.jpg"):
        assert said in result.stdout
    assert "does not fit into the memory; --set training.accumulate=2" in result.stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.50 s"), (45, "45 s"), (300, "5 min"), (36_000, "10 h"), (172_800, "2 days"), (1_000_000, "11.6 days")],
)
def test_durations_have_their_natural_unit(seconds: float, text: str) -> None:
    from atrous.cli.progress import format_duration

    assert format_duration(seconds) == text


def test_a_log_that_is_not_a_terminal_has_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    from atrous.training import stages, types

    def train(recipe: Any, out: Path, *, resume: bool, on_step: Any, on_message: Any) -> Any:
        for step in (1, 2):
            on_step(types.Progress(step, 4000, 0.5, 0.01, 1.0, 3.0, 0.1))
        return types.Result(out / "best", out / "last", None)

    monkeypatch.setattr(stages, "train", train)
    times = iter(range(0, 10_000, 120))
    monkeypatch.setattr(import_module("atrous.cli.train").time, "monotonic", lambda: next(times))
    (tmp_path / "r.toml").write_text('[data]\ntrain = "folder:x"\n')
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "days left" in result.stderr
