"""evaluate."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def test_evaluate_prints_a_table_and_writes_json(dataset: Path, loaded: list[str], tmp_path: Path, run: Run) -> None:
    options = ["--data", f"folder:{dataset}", "--split", "all", "--json", tmp_path / "scores.json"]
    result = run("evaluate", "--model", "fake", *options)
    assert result.exit_code == 0, result.output
    assert "fake (by_channel) on folder:" in result.stdout
    assert ": 2 images" in result.stdout
    assert "pixel accuracy" in result.stdout
    assert "75.00" in result.stdout
    assert json.loads((tmp_path / "scores.json").read_text())["pixel_accuracy"] == pytest.approx(0.75)
