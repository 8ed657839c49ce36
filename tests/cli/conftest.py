"""What the tests of the commands share."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from atrous.cli import app
from atrous.grid import Grid
from atrous.labels import LabelSet, encode_mask
from atrous.models import loading as zoo
from atrous.models.base import Output

Run = Callable[..., Result]


class ByChannel(nn.Module):
    label_set = LabelSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    name = "by_channel"
    output_stride = 1
    settings: ClassVar[dict[str, Any]] = {}
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.card: dict[str, Any] = {}

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def main_output(self, images: Tensor) -> Output:
        return Output("main", images, Grid(1, 0))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces every model by one that goes by color; lists what was asked for."""
    names: list[str] = []

    def load(name: str) -> ByChannel:
        names.append(name)
        return ByChannel()

    monkeypatch.setattr(zoo, "load", load)
    return names


@pytest.fixture
def run() -> Run:
    """Runs the command line."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def red_image() -> Callable[[Path], Path]:
    """Writes a small red image."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(path)
        return path

    return write


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two images, red left of blue; the second mask says green instead of blue."""
    folder = tmp_path / "data"
    (folder / "masks").mkdir(parents=True)
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :4, 0] = image[:, 4:, 2] = 255
    for name, right in (("a", 2), ("b", 1)):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"images/{name}.png")
        mask = np.repeat([[0, right]], 4, axis=1).repeat(4, axis=0).astype(np.uint8)
        (folder / f"masks/{name}.png").write_bytes(encode_mask(mask, ByChannel.label_set))
    (folder / "labels.toml").write_text('names = ["red", "green", "blue"]')
    return folder
