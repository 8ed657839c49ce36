"""Details of an evaluation, on a model whose answers are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassCalibrationError

from atrous.data.dataset import Sample
from atrous.evaluation.evaluate import evaluate
from atrous.evaluation.metrics import ConfusionMatrix
from atrous.grid import Grid
from atrous.inference.test_time import Inference
from atrous.labels import IGNORE, LabelSet
from atrous.models.base import Output

LABELS = LabelSet(("background", "red", "green"))


class Channels(nn.Module):
    """A model whose logits are the image's channels."""

    name, label_set, backbone = "channels", LABELS, SimpleNamespace(in_channels=3)
    preprocessing = SimpleNamespace(dtype="uint8", ranges=())

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def preprocess(self, images):
        return images.float() / 60

    def main_output(self, images):
        return Output("main", images, Grid(1, 0))


class Noise:
    """Images of noise with squares of the classes."""

    name, label_set = "noise:val", LABELS

    def __len__(self):
        return 6

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        mask = np.zeros((50, 60 + index), np.uint8)
        mask[5:30, 5:25], mask[20:45, 30:50] = 1, 2
        image = 100 * np.eye(3)[mask] + random.integers(0, 130, (*mask.shape, 3))
        mask[:4] = IGNORE
        return Sample(image.astype(np.uint8), mask, f"{index}.png")


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(Channels(), Noise(), details=True)


def test_the_rows_of_images_add_up_to_the_confusion_matrix(evaluation):
    rows, matrix = evaluation.details.per_image.rows, evaluation.confusion.matrix
    for label in range(3):
        of_class = rows[rows[:, 1] == label].sum(axis=0)
        assert of_class[2:5].tolist() == [matrix[label, label], matrix[label].sum(), matrix[:, label].sum()]
    assert evaluation.details.per_image.names == [f"{index}.png" for index in range(6)]


def test_calibration_is_torchmetrics_over_all_pixels(evaluation):
    peer = MulticlassCalibrationError(3, n_bins=15, norm="l1", ignore_index=IGNORE)
    for sample in (Noise()[index] for index in range(6)):
        logits = torch.from_numpy(sample.image).float().permute(2, 0, 1)[None] / 60
        peer.update(logits.softmax(1), torch.from_numpy(sample.mask)[None].long())
    assert evaluation.details.calibration.expected_error == pytest.approx(float(peer.compute()), abs=1e-6)
    assert evaluation.details.calibration.pixels.sum() == evaluation.confusion.matrix.sum()


def test_the_json_has_details_only_if_asked_and_the_rest_stays(evaluation):
    plain = evaluate(Channels(), Noise()).to_dict()
    detailed = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    details = detailed.pop("details")
    assert {**detailed, "seconds": 0} == {**plain, "seconds": 0}
    low, high = details["intervals"]["mean_iou"]
    assert low < detailed["mean_iou"] < high
    assert 0 < details["boundary_iou"]["mean_iou"] < detailed["mean_iou"]
    assert len(details["objects"]["classes"]) == 2


def test_views_are_merged_before_confidence_is_taken():
    several = evaluate(Channels(), Noise(), inference=Inference(flip=True), details=True)
    once = evaluate(Channels(), Noise(), details=True)
    assert several.details.calibration.expected_error == pytest.approx(once.details.calibration.expected_error)


def test_memory_does_not_grow_with_the_pixels_of_the_images():
    details = evaluate(Channels(), Noise(), details=True).details
    assert len(details.per_image._rows) * 8 + len(details.per_image._sizes) * 8 == 6 * (3 * 64 + 48)


def test_images_without_a_pixel_that_counts_are_undefined():
    class Ignored(Noise):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, np.full_like(sample.mask, IGNORE), sample.name)

    facts = evaluate(Channels(), Ignored(), details=True).to_dict()["details"]
    assert facts["intervals"]["mean_iou"] is facts["calibration"]["expected_error"] is None
    assert facts["boundary_iou"]["mean_iou"] is facts["objects"]["recall"] is None
    assert ConfusionMatrix(LABELS).metrics().absent == LABELS.names
