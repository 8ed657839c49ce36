"""data check and data stats."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

Run = Callable[..., Result]


def test_data_check_prints_tables_and_findings(dataset: Path, tmp_path: Path, run: Run) -> None:
    facts = tmp_path / "new/facts.json"
    result = run("data", "check", f"folder:{dataset}", "--split", "all", "--json", facts)
    assert result.exit_code == 0, result.output
    assert "folder:all: 2 of 2 pairs are good, 8×4 to 8×4 pixels" in result.stdout
    assert "red     50.00 %  in 2 images" in result.stdout
    assert result.stdout.endswith("healthy: 1 note\n")  # the images are the same
    assert json.loads(facts.read_text())["healthy"]
    (dataset / "images/a.png").write_bytes(b"broken")
    result = run("data", "check", f"folder:{dataset}", "--split", "all", "--json", facts)
    assert result.exit_code == 1
    assert "a.png: not an image" in result.stdout
    assert "1 of 2 pairs" in result.stdout
    assert json.loads(facts.read_text())["findings"][0]["kind"] == "unreadable-image"


def test_data_check_fix_checks_the_copy(dataset: Path, tmp_path: Path, run: Run) -> None:
    (dataset / "images/a.png").write_bytes(b"broken")
    options = ["--split", "all", "--fix", tmp_path / "copy", "--json", tmp_path / "facts.json"]
    result = run("data", "check", f"folder:{dataset}", *options)
    assert result.exit_code == 0, result.output
    assert "folder:all: 1 of 1 pairs are good" in result.stdout
    assert json.loads((tmp_path / "facts.json").read_text())["repaired"]["splits"] == {"all": 1}
    assert run("data", "check", f"folder:{dataset}", *options).exit_code == 2  # the copy is there already


def test_data_stats_prints_weights_and_draws_a_sheet(dataset: Path, tmp_path: Path, run: Run) -> None:
    options = ["--split", "all", "--json", tmp_path / "stats.json", "--sheet", tmp_path / "sheet.png"]
    result = run("data", "stats", f"folder:{dataset}", *options)
    assert result.exit_code == 0, result.output
    assert "sizes: 8×4 to 8×4" in result.stdout
    classes = json.loads((tmp_path / "stats.json").read_text())["classes"]
    assert (classes[0]["name"], classes[0]["pixels"], classes[0]["median_frequency"]) == ("red", 32, 1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 640
    (dataset / "masks/a.png").write_bytes(b"broken")
    result = run("data", "stats", f"folder:{dataset}", "--split", "all")
    assert result.exit_code == 1
    assert "a.png: not a readable" in result.stderr
    assert "1 images" in result.stdout


@pytest.mark.parametrize("command", ["check", "stats"])
def test_a_json_file_that_cannot_be_written_fails_before_the_work(
    command: str, dataset: Path, tmp_path: Path, run: Run
) -> None:
    result = run("data", command, f"folder:{dataset}", "--json", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(tmp_path) in result.stderr
