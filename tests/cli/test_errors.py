"""Expected errors are one message and an exit code; bugs keep their traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from atrous.models import loading as zoo

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "no/*.jpg", "--out", "o", "--model", "fake"], "no/*.jpg: no image matches this pattern"),
        (
            ["predict", "x.jpg", "--out", "o", "--device", "toaster"],
            "no device 'toaster' on this machine; there are: cpu",
        ),
        (["evaluate", "--model", "fake", "--data", "nothing"], "'nothing' is not a dataset"),
        (["train", "no.toml", "--out", "o"], "there is no recipe no.toml"),
        (["data", "check", "folder:no"], "the folder no does not exist"),
    ],
)
def test_an_expected_error_is_one_message_and_exit_code_2(
    arguments: list[str], words: str, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("atrous: ")
    assert words in result.stderr
    assert result.stdout == ""


def test_an_unknown_model_is_an_expected_error(tmp_path: Path, run: Run) -> None:
    result = run("predict", "x.jpg", "--out", tmp_path, "--model", "no-such-model")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no model 'no-such-model'" in result.stderr


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), ValueError("from elsewhere")])
def test_a_bug_keeps_its_traceback(bug: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def fail(name: str) -> None:
        raise bug

    monkeypatch.setattr(zoo, "load", fail)
    assert run("predict", "x.jpg", "--out", tmp_path).exception is bug


def test_ctrl_c_is_exit_code_130_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "load", interrupt)
    result = run("predict", "x.jpg", "--out", tmp_path)
    assert (result.exit_code, result.output) == (130, "")
