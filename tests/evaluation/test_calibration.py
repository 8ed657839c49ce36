"""Calibration against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from atrous.evaluation.calibration import Calibration


def test_the_expected_error_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    peer, ours = MulticlassCalibrationError(5, n_bins=15, norm="l1"), Calibration()
    for size in (1000, 37, 5000):
        probabilities = (3 * torch.randn(size, 5, generator=generator)).softmax(1)
        true = torch.where(
            torch.rand(size, generator=generator) < 0.5,
            probabilities.argmax(1),
            torch.randint(0, 5, (size,), generator=generator),
        )
        peer.update(probabilities, true)
        confidence, label = probabilities.max(1)
        ours.update(confidence, label == true)
    assert ours.expected_error == pytest.approx(float(peer.compute()), abs=1e-6)
    assert ours.pixels.sum() == 6037


def test_a_network_that_is_as_sure_as_it_is_right_has_no_error():
    ours = Calibration()
    ours.update(torch.full((10,), 0.8), torch.arange(10) < 8)
    ours.update(torch.ones(4), torch.ones(4, dtype=torch.bool))
    assert ours.expected_error == pytest.approx(0, abs=1e-7)
    assert ours.to_dict()["bins"][14] == {"from": 14 / 15, "to": 1.0, "pixels": 4, "confidence": 1.0, "accuracy": 1.0}


def test_without_pixels_it_is_undefined():
    ours = Calibration()
    ours.update(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    assert np.isnan(ours.expected_error)
    assert ours.to_dict()["expected_error"] is None
