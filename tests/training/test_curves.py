"""The curves of a run: a table and a figure from its log."""

import csv
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from atrous.training.recipe import Recipe
from atrous.training.stages import train


def test_a_run_writes_its_curves(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(make_recipe(data__val_split="val", training__epochs=2, log__every=1), run)
    with (run / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["loss"]] == ["1", "2", "3", "4"]
    validations = [row for row in rows if row["mean_iou"]]
    assert [row["step"] for row in validations] == ["2", "4"]
    assert all(0 < float(row["validation_loss"]) < 10 and 0 <= float(row["iou ground"]) <= 1 for row in validations)
    with Image.open(run / "curves.png") as image:
        assert image.size == (880, 660)
