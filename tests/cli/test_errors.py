"""Expected errors are one message and an exit code; bugs keep their traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from atrous.cli import app
from atrous.cli.common import Command
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


@pytest.mark.parametrize(
    "arguments",
    [
        "evaluate --model A --model B --data folder:x",
        "predict x.jpg --out a --out=b",
        "train recipe --out a --set x=1 --set y=2 --out b",
        "data check folder:x --json a --json b",
        "crf refine x.jpg --predictions p --out a --sxy 1 --sxy 2",
        "convert pytorch file --out a --out b",
    ],
)
def test_an_option_of_one_value_that_is_repeated_is_refused(run: Run, arguments: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert "given 2 times, and takes one value" in result.stderr


def test_every_command_refuses_repeated_options() -> None:
    def leaves(command: Any) -> list[Any]:
        return (
            [leaf for sub in command.commands.values() for leaf in leaves(sub)]
            if hasattr(command, "commands")
            else [command]
        )

    assert all(isinstance(command, Command) for command in leaves(typer.main.get_command(app)))


def test_a_file_name_of_any_bytes_is_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    code = f"import typer; from atrous.cli.common import print_any_name as f; f(); typer.echo({name!a} + chr(8594))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, encoding="utf-8"
    )
    assert found.stdout == "caf\\udce9.png→\n"
