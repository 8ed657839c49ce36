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

STATE = "state"


class ResumeError(ValueError):
    """A run that can't go on; the message says why."""


def save_state(out: Path, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of tensors and JSON facts as ``OUT/state``; until the new one is whole, the old one stays."""
    new, old, current = out / f".{STATE}.new", out / f".{STATE}.old", out / STATE
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    for name, group in tensors.items():
        save_file({k: v.detach().contiguous().cpu() for k, v in group.items()}, new / f"{name}.safetensors")
    (new / "state.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if current.exists():
        os.replace(current, old)
    os.replace(new, current)
    shutil.rmtree(old, ignore_errors=True)


def load_state(out: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Raises:
        ResumeError: there is none, or it is damaged.
    """
    folder = next((f for f in (out / STATE, out / f".{STATE}.old") if (f / "state.json").is_file()), None)
    if folder is None:
        raise ResumeError(f"{out} holds no run to resume (no {STATE}/state.json); start it without --resume")
    try:
        facts = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return {f.stem: load_file(f) for f in sorted(folder.glob("*.safetensors"))}, facts
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ResumeError(f"{folder} is damaged: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, slots in state.items() for key, value in slots.items() if isinstance(value, Tensor)}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` took out."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def restore_weights(net: nn.Module, tensors: dict[str, Tensor], out: Path) -> None:
    """Load weights that must fit exactly."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ResumeError(f"the run in {out} is of another network than its recipe says: {error}") from error
