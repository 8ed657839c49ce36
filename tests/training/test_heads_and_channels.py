"""Trainings from the command line on SIFT Flow's two masks and on NYUDv2's further channels: they learn."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.opening import open_dataset
from atrous.evaluation.evaluate import evaluate
from atrous.evaluation.report import table
from atrous.inference.predict import predict
from atrous.models.loading import load
from atrous.training.recipe import RecipeError, check_recipe
from atrous.training.stages import train

SIFT = "spatial_envelope_256x256_static_8outdoorcategories"
SIDE = 64
Train = Callable[..., list[float]]


def matrix(path: Path, **variables: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables)


def image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(random: np.random.Generator, level: object) -> np.ndarray:
    return np.clip(np.asarray(level) + random.integers(-20, 21, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8)


@pytest.fixture
def siftflow(tmp_path: Path) -> Path:
    """Streets: sky above road, and a building from one into the other."""
    root, random = tmp_path / "siftflow", np.random.default_rng(0)
    colors = {28: (120, 170, 250), 22: (70, 70, 75), 6: (190, 110, 60)}
    for number in range(8):
        labels = np.full((SIDE, SIDE), 28, np.uint8)
        labels[SIDE // 2 :] = 22
        left = int(random.integers(8, SIDE - 24))
        labels[12 : SIDE - 12, left : left + 16] = 6
        shapes = np.select([labels == 28, labels == 22], [1, 2], 3)
        shapes[:4] = -1
        level = np.array([colors.get(label, (0, 0, 0)) for label in range(34)])[labels]
        image(root / f"Images/{SIFT}/s{number}.jpg", noise(random, level))
        matrix(root / f"SemanticLabels/{SIFT}/s{number}.mat", S=labels)
        matrix(root / f"GeoLabels/{SIFT}/s{number}.mat", S=shapes.astype(np.int16))
    (root / "trainval.txt").write_text("".join(f"s{number}\n" for number in range(6)))
    (root / "test.txt").write_text("s6\ns7\n")
    return root


@pytest.fixture
def nyud(tmp_path: Path) -> Path:
    """Rooms without colours: what stands where shows only in HHA and in depth."""
    root, random = tmp_path / "nyud", np.random.default_rng(0)
    for number in range(6):
        labels = np.full((SIDE, SIDE), 1, np.uint16)
        labels[SIDE // 2 :] = 2
        left = int(random.integers(8, SIDE - 24))
        labels[20 : SIDE - 4, left : left + 16] = 4
        hha = np.array([(0, 0, 0), (60, 200, 90), (120, 20, 180), (0, 0, 0), (220, 90, 40)])[labels]
        depth = np.array([0, 6000, 2500, 0, 900], np.uint16)[labels]
        name = f"img_{5000 + number}"
        image(root / f"data/images/{name}.png", noise(random, np.full((SIDE, SIDE, 3), 128)))
        image(root / f"data/hha/{name}.png", noise(random, hha))
        image(root / f"data/depth/{name}.png", depth)
        matrix(root / f"segmentation/{name}.mat", segmentation=labels)
    (root / "train.txt").write_text("".join(f"{5000 + number}\n" for number in range(4)))
    (root / "test.txt").write_text("5004\n5005\n")
    return root


RECIPE = """
[model]
name = "fcn8s"
pretrained = false
[data]
workers = 0
[augment]
crop = 64
scale = [1.0, 1.0]
brightness = 0.2
hue = 20
[optimizer]
name = "adamw"
lr = 0.005
[training]
batch_size = 2
epochs = 12
precision = "float32"
validate_every = 6
[log]
every = 1
"""


@pytest.fixture
def run(tmp_path: Path) -> Train:
    """Trains by the command line; gives the losses of the steps."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def run(out: Path, **changes: str) -> list[float]:
        given = [f"--set={key.replace('__', '.')}={value}" for key, value in changes.items()]
        result = CliRunner().invoke(app, ["train", str(recipe), "--out", str(out), *given], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [
            line["loss"] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in line
        ]

    return run


def falls(losses: list[float]) -> bool:
    return float(np.mean(losses[-3:])) < 0.5 * losses[0]


def test_both_heads_of_sift_flow_learn_and_are_evaluated(run: Train, siftflow: Path, tmp_path: Path) -> None:
    losses = run(
        tmp_path / "run",
        model__backbone="test_resnet",
        model__options="{ heads = { geometric = 3 } }",
        data__train=f"siftflow:{siftflow}",
        data__train_split="trainval",
        data__val_split="test",
    )
    assert losses[0] == pytest.approx(np.log(33) + 15 / 16 * np.log(3), rel=1e-3)  # scorers begin at zero
    assert falls(losses)
    card = load(tmp_path / "run/best").card["metrics"]
    assert card["heads"]["geometric"]["pixel_accuracy"] > 0.6
    evaluation = evaluate(load(tmp_path / "run/best"), open_dataset(f"siftflow:{siftflow}", "test"))
    assert evaluation.heads["geometric"].matrix.sum() == 2 * (SIDE - 4) * SIDE
    assert "geometric: pixel accuracy" in table(evaluation)
    assert {"cow", "desert", "moon"} < set(evaluation.metrics.absent)
    assert evaluation.metrics.mean_iou_of_true_classes == pytest.approx(evaluation.metrics.iou[[5, 21, 27]].mean())


@pytest.mark.parametrize(
    ("kind", "backbone", "channels"),
    [("nyud-rgbd", "test_resnet", 4), ("nyud-rgb-hha", "test_resnet+test_resnet", 6), ("nyud-hha", "test_resnet", 3)],
)
def test_a_network_learns_what_only_further_channels_show(
    run: Train, nyud: Path, tmp_path: Path, kind: str, backbone: str, channels: int
) -> None:
    losses = run(tmp_path / "run", model__backbone=backbone, data__train=f"{kind}:{nyud}", data__val_split="test")
    assert falls(losses)
    model = load(tmp_path / "run/best")
    data = open_dataset(f"{kind}:{nyud}", "test")
    assert model.backbone.in_channels == len(model.preprocessing.mean) == channels
    assert evaluate(model, data).metrics.pixel_accuracy > 0.6
    found = predict(model, data[0].image)
    assert found.labels.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(found.image, data[0].shown)
    assert (tmp_path / "run/samples").is_dir()


def test_heads_without_masks_and_other_channels_are_refused(siftflow: Path, nyud: Path, tmp_path: Path) -> None:
    def refusal(heads: object, **data: str) -> str:
        model = {"name": "fcn8s", "backbone": "test_resnet", "pretrained": False, "options": {"heads": heads}}
        recipe = check_recipe({"model": model, "data": {"workers": 0, **data}}, "test")
        with pytest.raises(RecipeError) as caught:
            train(recipe, tmp_path / "none")
        return str(caught.value)

    sift = {"train": f"siftflow:{siftflow}", "train_split": "trainval", "val_split": "none"}
    assert "siftflow:trainval has heads = { geometric = 3 }, not {'geometric': 4}" in refusal({"geometric": 4}, **sift)
    nyuds = {"train": f"nyud:{nyud}", "val_split": "test"}
    assert "nyud:train has only the main masks" in refusal({"geometric": 3}, **nyuds)
    assert "data.val has images of other channels" in refusal({}, **nyuds, val=f"nyud-hha:{nyud}")
