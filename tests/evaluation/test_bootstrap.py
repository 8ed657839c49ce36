"""Intervals against scipy's bootstrap and against metrics computed draw by draw."""

import json

import numpy as np
import pytest
from scipy.stats import bootstrap

from atrous.evaluation.bootstrap import draw, interval, intervals, whole
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.evaluation.per_image import PerImage
from atrous.labels import LabelSet

LABELS = LabelSet(("sky", "road", "car", "never"))


@pytest.fixture(scope="module")
def confusions():
    random = np.random.default_rng(0)
    counts = random.integers(0, 50, (40, 4, 4)) + 100 * np.eye(4, dtype=np.int64)
    counts[:, 3] = counts[:, :, 3] = 0
    counts[::3, 2] = counts[::3, :, 2] = 0  # cars are in some images only
    counts[7] = 0  # all ignored
    return counts


@pytest.fixture(scope="module")
def per_image(confusions):
    found = PerImage(4)
    for number, confusion in enumerate(confusions):
        borders = np.stack([confusion.diagonal() // 2, confusion.sum(1) // 2, confusion.sum(0) // 2], axis=1)
        found.add(f"{number}.jpg", confusion, borders, np.full((3, 3), float(number % 3)))
    return found


def metrics_of(confusions):
    total = ConfusionMatrix(LABELS)
    total.matrix += confusions.sum(axis=0)
    return total.metrics()


def test_the_whole_has_the_metrics_of_its_confusion_matrix(per_image, confusions):
    metrics, found = metrics_of(confusions), whole(per_image)
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert found.summaries[name][0] == pytest.approx(getattr(metrics, name))
    assert found.classes[0] == pytest.approx(metrics.iou, nan_ok=True)
    assert found.sizes[0] == pytest.approx([1, 1, 1])


def test_each_draw_has_the_metrics_of_the_images_drawn(per_image, confusions):
    found, random = draw(per_image, draws=5, seed=3), np.random.default_rng(3)
    for number in range(5):
        metrics = metrics_of(confusions[random.integers(0, 40, 40)])
        assert found.summaries["mean_iou"][number] == pytest.approx(metrics.mean_iou)
        assert found.classes[number] == pytest.approx(metrics.iou, nan_ok=True)


def test_the_interval_is_scipys(per_image, confusions):
    correct, true = confusions.trace(axis1=1, axis2=2), confusions.sum(axis=(1, 2))
    peer = bootstrap(
        (correct, true),
        lambda c, t, axis=-1: c.sum(axis) / t.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = interval(draw(per_image, draws=4000).summaries["pixel_accuracy"])
    assert ours == pytest.approx([peer.low, peer.high], abs=0.05 * (peer.high - peer.low))


def test_a_seed_fixes_the_intervals_and_absent_classes_have_none(per_image):
    first = intervals(per_image, draws=50)
    assert first == intervals(per_image, draws=50)
    assert first != intervals(per_image, draws=50, seed=1)
    assert first["classes"][3] is None
    assert first["classes"][2][0] < whole(per_image).classes[0, 2] < first["classes"][2][1]


def test_images_are_ranked_by_their_own_mean_iou(per_image, confusions):
    expected = [metrics_of(confusion[None]).mean_iou for confusion in confusions]
    assert per_image.mean_iou() == pytest.approx(expected, nan_ok=True)
    assert per_image.ranked() == [int(i) for i in np.argsort(expected, kind="stable") if i != 7]


def test_only_classes_that_occur_take_room_and_what_is_written_is_read_again(per_image):
    assert len(per_image.rows) == 14 * 2 + 25 * 3
    written = json.loads(json.dumps(per_image.to_dict()))
    again = PerImage.from_dict(written, 4)
    assert again.to_dict() == per_image.to_dict()
    assert len(again) == 40


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": [[0, 4, 1, 1, 1, 0, 0, 0]]},
        {"rows": [[40, 0, 1, 1, 1, 0, 0, 0]]},
        {"rows": [[0, 0, -1, 1, 1, 0, 0, 0]]},
        {"rows": [[0, 0]]},
        {"rows": "text"},
        {"columns": ["image"]},
        {"objects_by_size": [[1, 2]] * 40},
        {"names": None},
    ],
)
def test_damaged_counts_are_refused(per_image, damage):
    with pytest.raises(ValueError, match="its per_image is damaged"):
        PerImage.from_dict(per_image.to_dict() | damage, 4)
