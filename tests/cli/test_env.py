"""What a report of a fault contains."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import Result

import atrous
from atrous.environment import environment


def test_everything_that_matters_is_shown_and_written(run: Callable[..., Result], tmp_path: Path) -> None:
    done = run("env", "--json", tmp_path / "env.json")
    assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "env.json").read_text())
    assert facts["atrous"].startswith(atrous.__version__)
    assert facts["devices"][0] == "cpu"
    assert facts["packages"]["torch"] == version("torch")
    assert facts["extras"]["coco"].keys() == {"pycocotools"}
    for name in facts:
        assert f"{name}:" in done.stdout


def test_paths_do_not_name_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(atrous.__file__).parents[2]))
    assert environment()["installed in"] == str(Path("~/src/atrous"))


def test_verdicts_on_runtimes_are_listed_and_damaged_ones_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ATROUS_CACHE", str(tmp_path))
    (tmp_path / "verdicts").mkdir()
    verdict = {"openvino": {"passed": False, "reason": "killed by SIGILL", "agreement": 0.0, "seconds": []}}
    (tmp_path / "verdicts" / "a.json").write_text(json.dumps(verdict))
    (tmp_path / "verdicts" / "b.json").write_text("[1, 2")
    assert environment()["runtimes tried here"] == ["openvino: not used, killed by SIGILL"]
