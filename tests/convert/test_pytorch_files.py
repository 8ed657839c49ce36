"""Checkpoints as training programs write them: weights under prefixes, beside scores and options."""

import argparse
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from atrous.convert.pytorch import read_state_dict
from atrous.convert.tensors import ConversionError

WEIGHTS = {f"{layer}.{kind}": torch.rand(2, 3) for layer in ("backbone.conv1", "classifier.0") for kind in ("a", "b")}


class NumPy1(pickle._Pickler):  # the one in Python, whose names of globals can be changed
    """Writes NumPy's objects as NumPy 1 named them."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__module__", "") == "numpy._core.multiarray":
            self.write(f"cnumpy.core.multiarray\n{obj.__name__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, type(len): save_global}


@pytest.mark.parametrize("numpy1", [False, True])
@pytest.mark.parametrize(
    "beside",
    [
        {"best_score": np.float64(0.71)},
        {"best_pred": np.float32(0.71), "optimizer": {"state": {0: {"step": 3}}}},
        {"epoch": np.int64(12), "better": np.bool_(1)},
        {"confusion": np.arange(6.0).reshape(2, 3)},
        {"args": argparse.Namespace(lr=0.1, classes=("a", "b"), root=Path("data"))},
    ],
)
def test_what_is_beside_the_weights_is_left_out(tmp_path: Path, beside: dict[str, Any], numpy1: bool) -> None:
    class Writer:
        Pickler = NumPy1 if numpy1 else pickle.Pickler
        loads, load = pickle.loads, pickle.load

    torch.save({**beside, "model_state": WEIGHTS}, tmp_path / "best.pth", pickle_module=Writer)
    if "args" not in beside:
        assert (b"cnumpy.core.multiarray" in (tmp_path / "best.pth").read_bytes()) is numpy1
    source = read_state_dict(tmp_path / "best.pth")
    assert source.names() == list(WEIGHTS)
    assert source.left_out == list(beside)
    for name, tensor in WEIGHTS.items():
        assert torch.equal(source.take(name, (2, 3)), tensor)


def test_objects_with_code_are_still_refused(tmp_path: Path) -> None:
    torch.save({"criterion": torch.nn.MSELoss(), "state_dict": WEIGHTS}, tmp_path / "net.pth")
    with pytest.raises(
        ConversionError, match="it contains other objects than tensors, and code in a file is never run"
    ):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "prefixes",
    [
        ("_orig_mod.",),
        ("module.",),
        ("model.",),
        ("net.",),
        ("module.", "_orig_mod."),
        ("model.", "_orig_mod.", "net."),
    ],
)
def test_prefixes_are_stripped_and_reported(tmp_path: Path, prefixes: tuple[str, ...]) -> None:
    torch.save({"".join(prefixes) + name: tensor for name, tensor in WEIGHTS.items()}, tmp_path / "net.pth")
    source = read_state_dict(tmp_path / "net.pth")
    assert source.names() == list(WEIGHTS)
    assert source.card()["changes"] == [f"the prefix '{p}' was taken off the names of its tensors" for p in prefixes]


def test_a_part_that_was_compiled(tmp_path: Path) -> None:
    renamed = {name.replace("backbone.", "backbone._orig_mod."): tensor for name, tensor in WEIGHTS.items()}
    torch.save(renamed, tmp_path / "net.pth")
    source = read_state_dict(tmp_path / "net.pth")
    assert source.names() == list(WEIGHTS)
    assert source.changes == ["'_orig_mod.' was taken out of the names of its tensors"]


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    weights = {f"model.{name}": tensor for name, tensor in WEIGHTS.items()} | {"loss.weight": torch.ones(21)}
    torch.save(
        {"epoch": 3, "pytorch-lightning_version": "2.4.0", "state_dict": weights, "hyper_parameters": {"lr": 0.1}},
        tmp_path / "last.ckpt",
    )
    source = read_state_dict(tmp_path / "last.ckpt")
    assert source.names() == list(WEIGHTS)
    assert source.left_out == ["epoch", "pytorch-lightning_version", "hyper_parameters", "loss.weight"]


def test_names_without_prefixes_stay(tmp_path: Path) -> None:
    torch.save(WEIGHTS | {"model.extra": torch.ones(1)}, tmp_path / "net.pth")
    source = read_state_dict(tmp_path / "net.pth")
    assert source.names() == [*WEIGHTS, "model.extra"]
    assert source.card() == {"converted_from": "net.pth"}
