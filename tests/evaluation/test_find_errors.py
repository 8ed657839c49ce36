"""Masks that are probably wrong: the ranking, its table and its page."""

import csv
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax
from torch import nn
from typer.testing import CliRunner

from atrous.cli import app
from atrous.evaluation.find_errors import compare_image, find_errors, rank, to_csv
from atrous.grid import Grid
from atrous.labels import LabelSet, encode_mask
from atrous.models import loading
from atrous.models.base import Output
from studies.find_errors import WAYS, spoil

THINGS = LabelSet(("background", "red", "green", "blue"))


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of two squares, and its mask."""
    random = np.random.default_rng(number)
    mask = np.zeros((96, 120), np.uint8)
    for left in (8, 66):
        top, side = random.integers(4, 40), random.integers(34, 48)
        mask[top : top + side, left : left + side] = random.integers(1, 4)
    color = np.array([(90, 90, 90), (200, 60, 60), (60, 200, 60), (60, 60, 200)])[mask]
    return (color + random.normal(0, 12, color.shape)).clip(0, 255).astype(np.uint8), mask


class ByColor(nn.Module):
    """A model that goes by the brightest channel, is not always sure, and takes every blue for green."""

    label_set, name, output_stride = THINGS, "by_color", 8
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.card: dict[str, Any] = {}

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 20

    def main_output(self, images: torch.Tensor) -> Output:
        seen = nn.functional.avg_pool2d(images, 9, 8, 4)
        red, green, blue = seen.split(1, 1)
        return Output("main", torch.cat([0 * red + 6, red, torch.maximum(green, blue), blue - 3], 1), Grid(8, 0))


@pytest.fixture(scope="module")
def spoilt() -> tuple[list[np.ndarray], list[np.ndarray], dict[int, str]]:
    images, masks = zip(*map(scene, range(100)), strict=True)
    wrong, ways = spoil(masks, len(THINGS), seed=1)
    return list(images), wrong, ways


class Scenes:
    name, label_set = "scenes:train", THINGS

    def __init__(self, images: list[np.ndarray], masks: list[np.ndarray]) -> None:
        self.images, self.masks = images, masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        from atrous.data.dataset import Sample

        return Sample(self.images[index], self.masks[index], f"{index}.png")


def test_spoilt_masks_come_first_though_the_model_never_knows_blue(spoilt: Any) -> None:
    images, masks, ways = spoilt
    assert Counter(ways.values()) == Counter(dict.fromkeys(WAYS, 1))
    suspects = find_errors(ByColor(), Scenes(images, masks))
    assert len(suspects) > 30  # every blue square disagrees
    assert len({suspect.index for suspect in suspects[:5]} & ways.keys()) >= 4


def test_each_suspect_says_what_is_wrong_and_where() -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((64, 80), np.uint8)
    logits = np.zeros((4, 8, 10)) + random.normal(0, 0.01, (4, 8, 10))
    logits[0] = 5
    logits[1, 2:6, 3:7] = 9  # something red that the mask lacks
    found = compare_image("a.png", mask, log_softmax(logits, 0).astype(np.float32), Grid(8, 0))
    (wrong,) = found.disagreements
    assert (wrong.given, wrong.predicted, wrong.share) == (0, 1, 16 / 80)
    assert wrong.evidence == pytest.approx(4)
    assert wrong.box == (20, 12, 52, 44)
    (suspect,) = rank([found], THINGS)
    assert suspect.sentence() == "red may be missing (20.0 % of the image)"
    assert next(csv.DictReader(to_csv([suspect]).decode().splitlines()))["kind"] == "missing object"


def test_ignored_pixels_and_thin_boundaries_are_no_disagreement() -> None:
    mask = np.full((64, 80), 255, np.uint8)
    mask[:, 16:24] = 1
    likelihoods = log_softmax(np.stack([np.full((8, 10), 5.0), np.zeros((8, 10))]), 0).astype(np.float32)
    assert compare_image("a", mask, likelihoods, Grid(8, 0)).disagreements == ()


def test_the_command_writes_a_page_and_a_table(spoilt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks, _ = spoilt
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/masks").mkdir()
    for number in range(12):
        Image.fromarray(images[number]).save(tmp_path / f"data/images/{number}.png")
        wrong = masks[number] if number else np.zeros_like(masks[0])
        (tmp_path / f"data/masks/{number}.png").write_bytes(encode_mask(wrong, THINGS))
    (tmp_path / "data/labels.toml").write_text('names = ["background", "red", "green", "blue"]')
    monkeypatch.setattr(loading, "load", lambda name: ByColor())
    out = tmp_path / "found"
    options = ["--data", f"folder:{tmp_path / 'data'}", "--split", "all", "--out", str(out), "--device", "cpu"]
    answer = CliRunner().invoke(app, ["data", "find-errors", "--model", "by_color", *options])
    assert answer.exit_code == 0, answer.output
    rows = list(csv.DictReader((out / "errors.csv").read_text().splitlines()))
    assert rows[0]["image"] in answer.output
    assert "0.png" in {row["image"] for row in rows[:2]}
    page = (out / "errors.html").read_text(encoding="utf-8")
    assert 'class="box"' in page
    assert "may be missing" in page


def test_an_empty_dataset_and_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="no image to check in scenes:train"):
        find_errors(ByColor(), Scenes([], []))
    other = Scenes(*(list(part) for part in zip(scene(0), strict=True)))
    other.label_set = LabelSet(("background", "red"))
    with pytest.raises(ValueError, match="classes must be the same"):
        find_errors(ByColor(), other)
