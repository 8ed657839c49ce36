"""Fixtures that several test files share."""

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Without bytecode each process that a test starts would compile the sources of torch and timm for ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Side by side (pytest -n), threads of several processes would wait for each other's turn on a core.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from atrous.models.backbones import fcn as classics
from atrous.training.recipe import Recipe, check_recipe
from tests.graphs import CARD, MakeFile, write_graph

SHARED = Path(__file__).resolve().parents[2] / "shared"
COLOURS = {1: (200, 40, 40), 2: (40, 200, 40), 3: (40, 40, 200)}
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def shared() -> Path:
    """The development folder with real images, beside the checkout; without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("needs the development images in ../shared (see CONTRIBUTING.md)")
    return SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def thin_classifier(name: str, share: int = 16, build: Callable[[str], nn.Module] = classics._classifier) -> nn.Module:
    """A classifier of the papers with a share of its channels: the same geometry in a hundredth of the time."""
    with torch.device("meta"):
        net = build(name)
    for key, layer in list(net.named_modules()):
        if isinstance(layer, nn.Conv2d):
            sides = layer.in_channels // share or 3, layer.out_channels // share
            net.set_submodule(
                key, nn.Conv2d(*sides, layer.kernel_size, layer.stride, layer.padding, groups=layer.groups)
            )
        elif isinstance(layer, nn.Linear):
            net.set_submodule(key, nn.Linear(layer.in_features // share, layer.out_features // share))
        elif isinstance(layer, nn.BatchNorm2d):
            net.set_submodule(key, nn.BatchNorm2d(layer.num_features // share))
    for parameter in net.parameters():  # so that something is left of an image after fifteen layers
        nn.init.normal_(parameter, std=math.sqrt(2 / parameter[0].numel()) if parameter.ndim > 1 else 0.1)
    return net


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The papers' backbones with a sixteenth of their channels."""
    monkeypatch.setattr(classics, "_classifier", thin_classifier)


def _draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = random.integers(70, 100, 2)
    image = random.integers(90, 160, (height, width, 1)).repeat(3, 2)
    mask = np.zeros((height, width), np.uint8)
    for label, colour in COLOURS.items():
        side = int(random.integers(26, 40))
        top, left = random.integers(0, height - side), random.integers(0, width - side)
        image[top : top + side, left : left + side] = colour + random.integers(-20, 20, 3)
        mask[top : top + side, left : left + side] = label
    mask[:3] = 255
    return image.astype(np.uint8), mask


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Eight images of red, green and blue squares on grey noise; two more to validate on."""
    root = tmp_path / "squares"
    random = np.random.default_rng(0)
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    for number in range(10):
        image, mask = _draw(random)
        Image.fromarray(image).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"masks/{number}.png")
    (root / "splits/train.txt").write_text("\n".join(map(str, range(8))))
    (root / "splits/val.txt").write_text("8\n9\n")
    (root / "labels.toml").write_text('names = ["ground", "red", "green", "blue"]\n')
    return root


@pytest.fixture
def make_recipe(squares: Path) -> MakeRecipe:
    """A recipe for the squares; keyword arguments are ``section__key=value``."""

    def make(**changes: Any) -> Recipe:
        table: dict[str, Any] = {
            "model": {
                "backbone": "test_resnet",
                "pretrained": False,
                "options": {"channels": 16, "low_level_channels": 8, "rates": [1, 2]},
            },
            "data": {"train": f"folder:{squares}", "val_split": "none", "workers": 0},
            "augment": {"crop": 65},
            "optimizer": {"lr": 0.05},
            "training": {"epochs": 2, "batch_size": 4, "precision": "float32"},
        }
        for key, value in changes.items():
            section, name = key.split("__")
            table.setdefault(section, {})[name] = value
        return check_recipe(table, "test")

    return make


@pytest.fixture
def make_onnx(tmp_path: Path) -> MakeFile:
    """Writes an exported file; without ``card`` it is another program's, with ``broken_at`` it takes one size alone."""

    def make(
        name: str = "model.onnx", *, probabilities: bool = False, card: Any = CARD, broken_at: int | None = None
    ) -> Path:
        return write_graph(tmp_path / name, probabilities=probabilities, card=card, broken_at=broken_at)

    return make


@pytest.fixture
def make_xml(make_onnx: MakeFile, tmp_path: Path) -> MakeFile:
    """Writes the same file for OpenVINO."""

    def make(name: str = "model.xml", **options: Any) -> Path:
        openvino = pytest.importorskip("openvino", reason="needs atrous[export]")
        model = openvino.Core().read_model(make_onnx("source.onnx", **options))
        model.set_rt_info(json.dumps(CARD), "atrous")
        openvino.save_model(model, tmp_path / name)
        return tmp_path / name

    return make
