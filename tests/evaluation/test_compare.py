"""Comparisons of evaluations of the same images."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from atrous.cli import app
from atrous.evaluation.compare import compare
from atrous.evaluation.details import Details
from atrous.evaluation.evaluate import Evaluation
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.stored import parse_evaluation, to_facts
from atrous.labels import LabelSet

LABELS = LabelSet(("background", "cat", "chair"))


def evaluated(title, wrong, *, images=25, labels=LABELS, skip=(), shift=0):
    """Facts of an evaluation in which shares of each true class of each image are predicted as background."""
    details, total = Details(labels), ConfusionMatrix(labels)
    for number in range(images):
        if number in skip:
            continue
        random = np.random.default_rng(number)
        true = np.zeros((60, 60), np.uint8)
        true[5 + shift : 35, 5:35], true[30:55, 38:58] = 1, 2
        predicted = true.copy()
        draws = random.random(true.shape)
        for label, share in enumerate(wrong):
            predicted[(true == label) & (draws < share)] = 0
        counted = ConfusionMatrix(labels)
        counted.update(true, predicted)
        total.merge(counted)
        details.update(f"{number}.png", true, predicted, counted)
    evaluation = Evaluation(title, "made:val", total, images, 1.0, "float32", "cpu", details=details)
    return to_facts(evaluation, {}, title)


def stored(title, wrong, **options):
    return parse_evaluation(evaluated(title, wrong, **options), title, title)


def test_the_verdict_says_by_how_much_and_where():
    found = compare(stored("first", (0, 0.3, 0.1)), stored("second", (0, 0.1, 0.2)))
    difference = found.summary[0]
    assert difference.value == pytest.approx(found.b.mean_iou - found.a.mean_iou)
    low, high = difference.interval
    assert low < difference.value < high
    verdict = found.verdict()
    assert verdict.startswith(
        f"B is better by {100 * difference.value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
    )
    assert "gains at boundaries" in verdict
    assert "on cat" in verdict.partition("loses")[0]
    assert "on chair" in verdict.partition("loses")[2]
    assert "B is worse by" in compare(found.b, found.a).verdict()


def test_paired_differences_are_those_of_the_same_draws():
    a, b = stored("a", (0, 0.3, 0.1)), stored("b", (0, 0.29, 0.1))
    found, random = compare(a, b), np.random.default_rng(0)
    rows = [e.per_image().rows for e in (a, b)]

    def mean_iou(table, images):
        times = np.bincount(images, minlength=25)[table[:, 0]]
        correct, true, predicted = (np.bincount(table[:, 1], times * table[:, key], 3) for key in (2, 3, 4))
        return (correct / (true + predicted - correct)).mean()

    differences = []
    for _ in range(2000):
        images = random.integers(0, 25, 25)
        differences.append(mean_iou(rows[1], images) - mean_iou(rows[0], images))
    assert found.summary[0].interval == pytest.approx(np.quantile(differences, (0.025, 0.975)))


def test_no_difference_is_said_to_be_none():
    a = stored("a", (0, 0.3, 0.1))
    assert compare(a, a).verdict() == "No difference in mean IoU is certain: +0.0 points (+0.0 to +0.0)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": LabelSet(("background", "cat", "sofa"))}, "class 2 is 'chair' in one and 'sofa' in the other"),
        ({"labels": LabelSet(("background", "cat", "chair", "dog"))}, "3 classes and 4"),
        ({"skip": (3,)}, "3.png is in the first only"),
        ({"images": 26}, "25.png is in the second only"),
        ({"shift": 1}, "the ground truth of 0.png has .* pixels of background in one"),
    ],
)
def test_results_of_different_data_are_refused_by_what_differs(options, message):
    with pytest.raises(ValueError, match=f"results of different data.*{message}"):
        compare(stored("a", (0, 0.1, 0.1)), stored("b", (0, 0.1, 0.1), **options))


def test_results_without_counts_of_images_are_refused():
    plain = evaluated("a", (0, 0.1, 0.1))
    del plain["details"]
    with pytest.raises(ValueError, match="holds no counts of single images"):
        compare(parse_evaluation(plain, "a", "a"), stored("b", (0, 0.1, 0.1)))


@pytest.fixture
def files(tmp_path):
    for name, wrong in (("a", (0, 0.3, 0.1)), ("b", (0, 0.1, 0.2))):
        (tmp_path / f"{name}.json").write_text(json.dumps(evaluated(f"model <{name}>", wrong)))
    return [str(tmp_path / "a.json"), str(tmp_path / "b.json")]


def test_stored_results_are_compared_from_the_command_line(files, tmp_path):
    page, facts = tmp_path / "compare.html", tmp_path / "compare.json"
    answer = CliRunner().invoke(app, ["compare", *files, "--report", str(page), "--json", str(facts)])
    assert answer.exit_code == 0, answer.output
    assert "B is better by" in answer.output
    assert json.loads(facts.read_text())["verdict"] in page.read_text(encoding="utf-8")
    assert "model &lt;a&gt;" in page.read_text(encoding="utf-8")


def test_several_results_are_joined_in_one_page(files, tmp_path):
    page = tmp_path / "joined.html"
    other = evaluated("model c", (0, 0, 0)) | {"data": "other:val"}
    (tmp_path / "c.json").write_text(json.dumps(other))
    answer = CliRunner().invoke(app, ["report", *files, "--out", str(page)])
    assert answer.exit_code == 0, answer.output
    text = page.read_text(encoding="utf-8")
    assert "model &lt;b&gt; has the highest mean IoU" in text
    assert "different data" not in text
    assert CliRunner().invoke(app, ["report", *files, str(tmp_path / "c.json"), "--out", str(page)]).exit_code == 0
    assert "results of different data, which do not compare" in page.read_text(encoding="utf-8")
