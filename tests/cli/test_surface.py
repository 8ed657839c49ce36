"""The command line's surface is frozen, and its help is quick."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import Result

from atrous.cli import app

Run = Callable[..., Result]


SURFACE = {
    "demo": "--device --model --out",
    "predict": (
        "--attention-maps --bands --batch --crf --device --engine --every --flip --json --longest-side --merge "
        "--model --out --output-stride --overlap --overlay --overwrite --polygons --precision --probabilities "
        "--resize --resume --runtime --scales --simplify --tile --workers INPUT"
    ),
    "evaluate": (
        "--classes --crf --data --device --flip --json --merge --model --model-classes --output-stride --overlap "
        "--precision --report --resize --runtime --scales --split --trimap"
    ),
    "compare": "--data --device --json --precision --report --split A B",
    "report": "--out RUN-OR-JSON",
    "sweep": (
        "--crf --data --device --flip --json --merge --model --output-stride --plot --precision --scales --split "
        "--trimap"
    ),
    "train": "--dry-run --out --resume --set RECIPE",
    "export": "--calibrate --format --int8 --model --out --output-stride --probabilities --split",
    "bench": "--calibrate --device --json --model --output-stride --size --split",
    "serve": (
        "--allow-origin --device --host --label-studio --model --onnxruntime-web --port --queue --runtime --static "
        "--timeout --token --workers"
    ),
    "models": "",
    "env": "--json",
    "crf refine": (
        "--classes --confidence --iterations --kind --orientation --out --overlay --overwrite --predictions "
        "--published --smoothness --smoothness-sxy --srgb --sxy --weight INPUT"
    ),
    "crf tune": "--data --device --flip --images --json --merge --model --out --scales --split",
    "convert to-pytorch": "--layout --model --out --overwrite",
    "convert caffe": "--as --classes --data --inputs --out --overwrite --rates --scales FILE",
    "convert classifier": "--as --out --overwrite FILE",
    "convert pytorch": "--as --classes --data --inputs --layout --out --overwrite --rates --scales FILE",
    "convert tensorflow": "--as --classes --data --out --overwrite --rates PREFIX",
    "convert tflite-arrays": "--classes --data --out --overwrite FILE",
    "data check": "--classes --enlarge-masks --fix --json --overlap --split --tolerance SPEC",
    "data convert": "--classes --link --out --overlap --split --to SPEC",
    "data find-errors": "--data --device --model --out --precision --split",
    "data split": "--classes --folds --group --out --overlap --seed --split --test --val SPEC",
    "data tile": "--classes --keep-empty --out --overlap --shared --size --split SPEC",
    "data stats": "--classes --json --overlap --sheet --split SPEC",
}
"""Every command with its arguments and options; a change here is a line in CHANGELOG."""


def commands(command: Any, name: str = "") -> dict[str, str]:
    if hasattr(command, "commands"):
        found = [commands(sub, f"{name} {key}".strip()) for key, sub in command.commands.items()]
        return {key: value for part in found for key, value in part.items()}
    words = [p.opts[0] if p.opts[0].startswith("-") else p.metavar for p in command.params if p.name != "help"]
    return {name: " ".join(sorted(words))}


def test_commands_and_options_are_frozen() -> None:
    assert commands(typer.main.get_command(app)) == SURFACE


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, atrous.cli; print([m for m in ('torch', 'timm', 'cv2', 'matplotlib', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["", *SURFACE])
def test_every_command_has_help(command: str, run: Run) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout.startswith("atrous ")
