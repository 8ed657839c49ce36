"""A run killed with SIGKILL at any moment and resumed ends bit-identical to an uninterrupted one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atrous.training.recipe import Recipe
from atrous.training.stages import train

KILLS = 10


def logged(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clocks = ("time", "seconds", "images_per_second", "waiting")
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ten_kills_change_nothing(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(
        data__val_split="val",
        data__workers=1,
        optimizer__name="adamw",
        training__ema=0.9,
        training__epochs=40,
        training__validate_every=2,
        loss__class_weights="auto",
        log__save_minutes=0,
        log__every=1,
        log__samples=1,
    )
    file = tmp_path / "recipe.json"
    file.write_text(recipe.model_dump_json())
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killer.py"), file, tmp_path / "killed", str(KILLS), "0"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill ") == KILLS
    train(recipe, tmp_path / "whole")
    for file in ("state/model", "state/ema", "state/optimizer", "best/model", "last/model"):
        whole, killed = (load_file(tmp_path / run / f"{file}.safetensors") for run in ("whole", "killed"))
        assert whole.keys() == killed.keys()
        assert [key for key in whole if not torch.equal(whole[key], killed[key])] == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == sorted(
        p.name for p in (tmp_path / "killed").iterdir()
    )


@pytest.mark.slow
def test_a_failed_run_leaves_no_worker_behind(
    make_recipe: Callable[..., Recipe], squares: Path, tmp_path: Path
) -> None:
    image = squares / "images/3.png"
    image.write_bytes(image.read_bytes()[:-2000])
    file = tmp_path / "recipe.json"
    file.write_text(make_recipe(data__workers=2, training__epochs=5).model_dump_json())
    code = (
        "import sys; from pathlib import Path; from atrous.training.recipe import Recipe; "
        "from atrous.training.stages import train; "
        "train(Recipe.model_validate_json(Path(sys.argv[1]).read_text()), sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file, tmp_path / "run"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "ImageError" in done.stderr
    assert "3.png" in done.stderr
