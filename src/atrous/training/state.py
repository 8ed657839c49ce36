"""The state of a run on disk: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrous.errors import AtrousError, InputError

STATE = "state"


class ResumeError(InputError):
    """A run that can't go on; the message says why."""


class SaveError(AtrousError, RuntimeError):
    """What a run has reached could not be written; the message says what is kept."""


def save_state(out: Path, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of tensors and JSON facts as ``OUT/state``; until the new one is whole and on the disk, the old one
    stays.

    Raises:
        OSError, SafetensorError: it can't be written; nothing has changed.
    """
    new, old, current = _places(out)
    standing = find_state(out)
    if standing and standing != current:
        standing.replace(current)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()  # its parent is there unless somebody took the run away
    try:
        for name, group in tensors.items():
            save_file({k: v.detach().contiguous().cpu() for k, v in group.items()}, new / f"{name}.safetensors")
        (new / "state.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for file in (*new.iterdir(), new):
            _flush(file)
    except Exception:
        shutil.rmtree(new, ignore_errors=True)  # on a full disk its room is needed
        raise
    if current.exists():
        current.replace(old)
    new.replace(current)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have a file or folder on the disk before what was there is given up."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def find_state(out: Path) -> Path | None:
    """The folder of the last whole state, if there is one; a crash may have left it under another name."""
    new, old, current = _places(out)
    if current.exists():
        return current
    if not old.exists():
        return None
    return new if new.exists() else old  # between the two renames of save_state the new one is whole


def _places(out: Path) -> tuple[Path, Path, Path]:
    return out / f".{STATE}.new", out / f".{STATE}.old", out / STATE


def load_state(out: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Raises:
        ResumeError: there is none, or it is damaged.
    """
    folder = find_state(out)
    if folder is None:
        raise ResumeError(f"{out} holds no run to resume (no {STATE}/state.json); start it without --resume")
    file = folder / "state.json"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        tensors = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors[file.stem] = load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise ResumeError(
            f"{file} is damaged: {error}; without it the run can't go on. Its last model, {out / 'last'}, can be "
            f'started from: --set model.start_from="{out / "last"}" and another --out'
        ) from error
    return tensors, facts


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter number and name."""
    state = optimizer.state_dict()["state"]
    slots = ((f"{number}.{key}", value) for number, group in state.items() for key, value in group.items())
    return {key: value for key, value in slots if isinstance(value, Tensor)}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` took out."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        # Fused optimizers walk weights and their averages side by side in memory: both must have one layout.
        alike = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        state.setdefault(int(number), {})[name] = alike
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def restore_weights(net: nn.Module, tensors: dict[str, Tensor], out: Path) -> None:
    """Load weights that must fit exactly."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ResumeError(f"the run in {out} is of another network than its recipe says: {error}") from error


class Log:
    """``log.jsonl`` of a run: a JSON object a line, each with the step it belongs to."""

    def __init__(self, out: Path) -> None:
        self.path = out / "log.jsonl"

    def add(self, facts: dict[str, Any]) -> None:
        """Append a line; a number that JSON does not know is an error."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts, allow_nan=False) + "\n")

    def cut(self, step: int) -> None:
        """Drop what came after a step, as the run that goes on from there will write it again."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if 0 <= _step_of(line) <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> int:
    """The step of a log line; -1 for one that a crash cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
