"""The report of an evaluation: what it shows, and how it behaves in a browser."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from atrous.cli import app
from atrous.evaluation.page.cases import ends
from atrous.evaluation.page.layers import ALARM, CONFUSED, MISSED, UNKNOWN, error_map
from atrous.evaluation.stored import read_evaluation
from atrous.grid import Grid
from atrous.labels import LabelSet, encode_mask
from atrous.models import loading
from atrous.models.base import Output
from tests.browser import chromium, open_page, serious_findings

THINGS = LabelSet(("background", "red", "<b>green & co"))


class ByColor(nn.Module):
    """A model that says red where the first channel is brightest, green where the second is."""

    label_set, name, output_stride = THINGS, "by_color", 1
    backbone = SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.card: dict[str, Any] = {"description": "goes by color", "recipe": {"optimizer": {"lr": 0.1}}}

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 60

    def main_output(self, images: torch.Tensor) -> Output:
        return Output("main", torch.cat([2 + 0 * images[:, :1], images[:, :2]], 1), Grid(1, 0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty noisy images of a red and a green square each."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    random = np.random.default_rng(0)
    for number in range(30):
        mask = np.zeros((48, 64), np.uint8)
        mask[4:40, 4:28], mask[20:44, 36 : 40 + number % 20] = 1, 2
        image = 40 + 160 * np.eye(3)[np.array([2, 0, 1])][mask] + random.normal(0, 3 * number, (*mask.shape, 3))
        mask[:2] = 255
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"images/{number:02}.png")
        (root / f"masks/{number:02}.png").write_bytes(encode_mask(mask, THINGS))
    (root / "labels.toml").write_text('names = ["background", "red", "<b>green & co"]')
    return root


@pytest.fixture(scope="module")
def report(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``atrous evaluate --report`` wrote."""
    out = tmp_path_factory.mktemp("out") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", lambda name: ByColor())
        options = ["--data", f"folder:{data}", "--split", "all", "--report", str(out), "--device", "cpu"]
        answer = CliRunner().invoke(app, ["evaluate", "--model", "by_color", *options])
    assert answer.exit_code == 0, answer.output
    assert f"report: {out / 'report.html'}" in answer.output
    return out


def test_the_page_is_one_small_file_that_refers_to_nothing_else(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert len(page) < 8e6
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\(|@import|https?://', page)
    assert page.count('<figure class="case">') == 24
    assert "&lt;b&gt;green &amp; co" in page
    assert "<b>green" not in page


def test_the_page_shows_the_figures_of_its_json(report: Path) -> None:
    page, stored = (report / "report.html").read_text(encoding="utf-8"), read_evaluation(report)
    assert f"{100 * stored.mean_iou:.1f}<small>%" in page
    low, high = stored.details.intervals.mean_iou
    assert f"{100 * low:.1f} to {100 * high:.1f}" in page
    for text in ("goes by color", "Largest confusions", "Reliability", "Near boundaries", "&#34;lr&#34;: 0.1"):
        assert text in page
    assert len(stored.per_image()) == 30
    assert len((report / "evaluation.json").read_text().splitlines()) < 200


def test_the_worst_and_the_best_images_are_never_the_same() -> None:
    assert ends(range(100)) == (list(range(12)), list(range(99, 87, -1)))
    assert ends(range(5)) == ([0, 1, 2], [4, 3])
    assert ends([7]) == ([7], [])
    assert ends([]) == ([], [])


def test_errors_are_told_apart() -> None:
    true, predicted = np.array([[0, 1, 1, 0, 255, 2]], np.uint8), np.array([[0, 0, 2, 1, 1, 2]], np.uint8)
    assert error_map(true, predicted, THINGS).tolist() == [[0, MISSED, CONFUSED, ALARM, UNKNOWN, 0]]
    streets = LabelSet(("sky", "road", "car"))
    assert error_map(true, predicted, streets).tolist() == [[0, CONFUSED, CONFUSED, CONFUSED, UNKNOWN, 0]]


def test_an_image_that_vanishes_meanwhile_is_a_sentence_on_the_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atrous.evaluation.page import writing

    copied, segment_again = tmp_path / "copied", writing.segment_again
    shutil.copytree(data, copied)

    def vanish(*arguments: Any) -> Any:
        (copied / "images/29.png").unlink()
        return segment_again(*arguments)

    monkeypatch.setattr(loading, "load", lambda name: ByColor())
    monkeypatch.setattr(writing, "segment_again", vanish)
    options = ["--data", f"folder:{copied}", "--split", "all", "--report", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, ["evaluate", "--model", "by_color", *options])
    assert answer.exit_code == 0, answer.output
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "can&#39;t be read any more" in page
    assert page.count('<figure class="case">') == 23


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"points": []}', "a sweep of several evaluations"),
        ("{}", "neither classes nor a mean IoU"),
        ('{"mean_iou": "high"}', "mean_iou"),
        ('{"mean_iou": 0.5, "classes": [{"name": "a"}], "confusion": [[1, 2]]}', "1 classes do not fit"),
    ],
)
def test_what_is_not_an_evaluation_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_evaluation(tmp_path)


def test_a_folder_without_an_evaluation_and_a_missing_file_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no evaluation; looked for"):
        read_evaluation(tmp_path)
    with pytest.raises(ValueError, match="neither a JSON file"):
        read_evaluation(tmp_path / "missing.json")


def test_the_metrics_of_a_run_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    metrics = {"mean_iou": 0.5, "data": "voc:val", "images": 3, "classes": [{"name": "cat", "iou": 0.5}]}
    (tmp_path / "best/config.json").write_text(json.dumps({"architecture": "fcn8s", "metrics": metrics}))
    found = read_evaluation(tmp_path)
    assert (found.model, found.mean_iou, found.classes[0].name, found.details) == ("fcn8s", 0.5, "cat", None)
    with pytest.raises(ValueError, match="holds no counts of single images"):
        found.per_image()


@pytest.fixture(scope="module")
def browse() -> Iterator[Callable[..., Any]]:
    """Opens a page in headless Chromium without a network, on a phone or a desktop; notes what the console says."""
    with chromium() as browser:

        def open_file(file: Path, width: int = 1200, scheme: str = "light") -> Any:
            return open_page(browser, file.as_uri(), width, scheme, offline=True)

        yield open_file


@pytest.mark.slow
def test_in_a_browser_it_sorts_compares_and_says_nothing_to_the_console(
    report: Path, browse: Callable[..., Any]
) -> None:
    page = browse(report / "report.html")
    first = page.locator(".sortable tbody tr:first-child th")
    page.get_by_role("button", name="accuracy %").click()
    assert page.locator("th[aria-sort=descending]").count() == 1
    best = first.text_content()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=ascending]").count() == 1
    assert first.text_content() != best
    slider = page.locator(".stage input").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.evaluate("input => input.parentElement.style.getPropertyValue('--cut')") == "51%"
    page.locator("fieldset").nth(1).get_by_text("errors").click()
    assert page.locator(".layer[data-layer=errors]").first.get_attribute("data-side") == "right"
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "light"
    assert page.said == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    report: Path, browse: Callable[..., Any], width: int, scheme: str
) -> None:
    page = browse(report / "report.html", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert serious_findings(page) == []
