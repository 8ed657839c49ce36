"""Pages of unusual evaluations: very many classes, one class, nothing that counts, images that do not compress."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.evaluation.details import Details
from atrous.evaluation.evaluate import Evaluation
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.page import layers
from atrous.evaluation.page.cases import Cases
from atrous.evaluation.page.layers import SIDES, Case, encode
from atrous.evaluation.page.report_page import IN_MATRIX, report_page
from atrous.evaluation.stored import parse_evaluation, to_facts
from atrous.labels import LabelSet


def page_of(true: np.ndarray, predicted: np.ndarray, labels: LabelSet) -> str:
    """The report of one image."""
    details, counted = Details(labels), ConfusionMatrix(labels)
    counted.update(true, predicted)
    details.update("a.png", true, predicted, counted)
    evaluation = Evaluation("net", "made:val", counted, 1, 1.0, "float32", "cpu", details=details)
    stored = parse_evaluation(to_facts(evaluation, {}, "net"), "", "net")
    return report_page(stored, labels, [], [], Cases()).decode()


def test_with_very_many_classes_the_matrix_shows_those_with_most_errors() -> None:
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 255, (2, 300, 300)).astype(np.uint8)
    page = page_of(true, predicted, LabelSet.numbered(255))
    assert len(page) < 1e6
    assert f"{255 - IN_MATRIX} are left out" in page


def test_an_evaluation_without_a_pixel_that_counts_is_a_page_of_dashes() -> None:
    ignored = np.full((20, 20), 255, np.uint8)
    page = page_of(ignored, np.zeros_like(ignored), LabelSet(("background", "cat")))
    assert "–<small>%" in page
    assert "nan" not in page


def test_images_that_do_not_compress_are_shown_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "ROOM", 400_000)
    random, labels = np.random.default_rng(0), LabelSet.numbered(200)

    def noise() -> Case:
        masks = {name: random.integers(0, 200, (700, 700)).astype(np.uint8) for name in ("truth", "prediction")}
        return Case("a", "", random.integers(0, 256, (700, 700, 3)).astype(np.uint8), masks, "prediction")

    shown = encode([noise() for _ in range(3)], labels)
    assert len(shown) == 3
    assert shown[0].width < SIDES[0]
    assert sum(len(one.photo) + sum(map(len, one.layers.values())) for one in shown) <= 400_000


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat"], "one class can't be distinguished from anything"),
        ([f"class {number}" for number in range(70_000)], "a label set has 2 to 65535 classes, not 70000"),
    ],
)
def test_one_class_and_too_many_are_sentences(names: list[str], message: str, tmp_path: Path) -> None:
    for folder, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / folder).mkdir()
        Image.new(mode, (8, 8)).save(tmp_path / folder / "a.png")
    (tmp_path / "labels.toml").write_text(f"names = {names}")
    options: list[Any] = ["--data", f"folder:{tmp_path}", "--split", "all", "--report", tmp_path / "out"]
    answer = CliRunner().invoke(app, ["evaluate", "--model", "any", *map(str, options)])
    assert answer.exit_code == 2
    assert message in answer.output
    assert "Traceback" not in answer.output
