import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassJaccardIndex

from atrous.evaluation.metrics import ConfusionMatrix
from atrous.label_sets import VOC
from atrous.labels import LabelSet

THREE = LabelSet(("background", "cat", "dog"))


def counted(matrix, labels=None):
    confusion = ConfusionMatrix(labels or LabelSet.numbered(len(matrix)))
    confusion.matrix[:] = matrix
    return confusion


def mask(*rows):
    return np.array(rows, np.uint8)


@st.composite
def masks(draw, classes=4):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    truth = draw(arrays(np.uint8, shape, elements=st.one_of(st.integers(0, classes - 1), st.just(255))))
    return truth, draw(arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))


def test_the_example_of_the_specification():
    """A worked example of the four metrics of the FCN paper (§5)."""
    scores = counted([[3, 1], [1, 2]]).metrics()
    assert scores.pixel_accuracy == pytest.approx(5 / 7)
    assert scores.mean_accuracy == pytest.approx((0.75 + 2 / 3) / 2)
    assert scores.iou.tolist() == pytest.approx([3 / 5, 2 / 4])
    assert scores.mean_iou == pytest.approx(0.55)
    assert scores.frequency_weighted_iou == pytest.approx((4 * 0.6 + 3 * 0.5) / 7)
    assert scores.absent == ()


def test_a_class_in_neither_truth_nor_prediction_drops_out():
    scores = counted([[3, 1, 0], [1, 2, 0], [0, 0, 0]], THREE).metrics()
    assert scores.mean_iou == pytest.approx(0.55)
    assert scores.mean_accuracy == pytest.approx((0.75 + 2 / 3) / 2)
    assert np.isnan(scores.iou[2])
    assert scores.absent == ("dog",)


def test_a_class_that_is_only_predicted_counts_as_iou_zero_and_not_in_the_mean_accuracy():
    scores = counted([[3, 0, 1], [0, 4, 0], [0, 0, 0]], THREE).metrics()
    assert scores.iou.tolist() == pytest.approx([0.75, 1, 0])
    assert scores.mean_iou == pytest.approx(1.75 / 3)
    assert scores.mean_accuracy == pytest.approx((0.75 + 1) / 2)
    assert np.isnan(scores.accuracy[2])
    assert scores.absent == ("dog",)


def test_without_a_judged_pixel_nothing_is_defined():
    confusion = ConfusionMatrix(THREE)
    confusion.update(np.full((3, 4), 255, np.uint8), np.zeros((3, 4), np.uint8))
    scores = confusion.metrics()
    means = [scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iou, scores.frequency_weighted_iou]
    assert np.isnan([*means, *scores.iou, *scores.accuracy]).all()
    assert scores.absent == THREE.names
    assert np.isnan(confusion.mean_iou_over(0))


@pytest.mark.parametrize("classes", [2, 5, 21])
def test_iou_of_each_class_agrees_with_torchmetrics(classes):
    peer = MulticlassJaccardIndex(classes, average=None, ignore_index=255)
    confusion = ConfusionMatrix(LabelSet.numbered(classes))
    for seed, size in enumerate([(13, 17), (8, 30), (1, 5)]):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, classes, size, dtype=np.uint8)
        prediction = np.where(rng.random(size) < 0.6, truth, rng.integers(0, classes, size, dtype=np.uint8))
        truth[rng.random(size) < 0.1] = 255
        confusion.update(truth, prediction)
        peer.update(torch.from_numpy(prediction)[None].long(), torch.from_numpy(truth)[None].long())
    assert np.allclose(confusion.metrics().iou, peer.compute().numpy(), atol=1e-6)


@settings(deadline=None)  # the first call compiles
@given(masks())
def test_a_perfect_prediction_scores_one(pair):
    truth, _ = pair
    confusion = ConfusionMatrix(LabelSet.numbered(4))
    confusion.update(truth, truth)
    scores = confusion.metrics()
    if (truth != 255).any():
        assert scores.pixel_accuracy == scores.mean_accuracy == scores.mean_iou == scores.frequency_weighted_iou == 1


@settings(deadline=None)  # the first call compiles
@given(st.lists(masks(), min_size=1, max_size=5), st.data())
def test_parts_counted_apart_and_merged_equal_the_whole(pairs, data):
    whole, first, second = (ConfusionMatrix(LabelSet.numbered(4)) for _ in range(3))
    for truth, prediction in pairs:
        whole.update(truth, prediction)
        data.draw(st.sampled_from([first, second])).update(truth, prediction)
    first.merge(second)
    assert (first.matrix == whole.matrix).all()
    assert (first.images == whole.images).all()


@settings(deadline=None)  # the first call compiles
@given(masks(), st.permutations(range(4)))
def test_renaming_classes_moves_their_scores_and_changes_no_mean(pair, order):
    rename = np.arange(256).astype(np.uint8)
    rename[:4] = order
    confusion, renamed = ConfusionMatrix(LabelSet.numbered(4)), ConfusionMatrix(LabelSet.numbered(4))
    confusion.update(*pair)
    renamed.update(rename[pair[0]], rename[pair[1]])
    before, after = confusion.metrics(), renamed.metrics()
    assert np.array_equal(before.iou, after.iou[order], equal_nan=True)
    assert np.array_equal(before.accuracy, after.accuracy[order], equal_nan=True)
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou"):
        assert getattr(before, name) == pytest.approx(getattr(after, name), nan_ok=True)


def test_images_are_counted_by_class_in_the_truth():
    confusion = ConfusionMatrix(THREE)
    confusion.update(mask([0, 0, 1]), mask([2, 2, 2]))
    confusion.update(mask([0, 255, 255]), mask([0, 1, 1]))
    assert confusion.images.tolist() == [2, 1, 0]


def test_a_batch_counts_as_its_images():
    truth = torch.tensor([[[0, 1]], [[1, 1]], [[255, 2]]])
    prediction = torch.tensor([[[0, 1]], [[0, 1]], [[2, 2]]])
    batch, single = ConfusionMatrix(THREE), ConfusionMatrix(THREE)
    batch.update(truth, prediction)
    for t, p in zip(truth, prediction, strict=True):
        single.update(t.numpy().astype(np.uint8), p)
    assert batch.matrix.tolist() == single.matrix.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 1]]
    assert batch.images.tolist() == single.images.tolist() == [1, 2, 1]
    batch.update(truth[:0], prediction[:0])
    assert batch.images.tolist() == [1, 2, 1]


def test_the_mean_over_frequent_classes_holds_background_and_those_in_enough_images():
    confusion = counted([[6, 1, 1], [1, 2, 0], [2, 0, 1]], THREE)
    confusion.images[:] = (3, 12, 9)
    iou = confusion.metrics().iou
    assert confusion.frequent_classes(10) == ("background", "cat")
    assert confusion.mean_iou_over(10) == pytest.approx((iou[0] + iou[1]) / 2)
    assert confusion.mean_iou_over(3) == pytest.approx(iou.mean())


def test_class_0_is_background_only_by_name():
    confusion = counted([[6, 1], [1, 2]], LabelSet(("sky", "background")))
    assert confusion.frequent_classes(10) == ()
    assert np.isnan(confusion.mean_iou_over(10))


def test_wrong_masks_are_refused_and_nothing_is_counted():
    confusion = ConfusionMatrix(VOC)
    good = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="ground truth contains the value 21"):
        confusion.update(good + 21, good)
    with pytest.raises(ValueError, match="prediction contains the value 30"):
        confusion.update(np.stack([good, good]), np.stack([good, good + 30]))
    with pytest.raises(ValueError, match="ground truth contains the value -1"):
        confusion.update(torch.full((2, 3), -1), good)
    with pytest.raises(ValueError, match="prediction contains the value 300"):
        confusion.update(good, torch.full((2, 3), 300))
    with pytest.raises(TypeError, match="prediction must hold integers, not float32"):
        confusion.update(good, good.astype(np.float32))
    for truth, prediction in ((good, good.T), (good[0], good[0])):
        with pytest.raises(ValueError, match="must have one size"):
            confusion.update(truth, prediction)
    with pytest.raises(ValueError, match="different classes"):
        confusion.merge(ConfusionMatrix(THREE))
    assert not confusion.matrix.any()
    assert not confusion.images.any()
