"""Energies from probabilities, logits and labels."""

import numpy as np
import pytest
import torch

from atrous.crf import unary_from_labels, unary_from_logits, unary_from_probabilities

LOGITS = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)


def test_probabilities_and_logits_agree() -> None:
    p = torch.from_numpy(LOGITS).softmax(1)
    assert np.allclose(unary_from_logits(LOGITS), -p.log().numpy(), atol=1e-6)
    assert np.allclose(unary_from_probabilities(p.numpy()), -p.log().numpy(), atol=1e-6)
    assert torch.equal(unary_from_probabilities(p)[1], unary_from_probabilities(p[1]))
    video = p[0][:, None]
    assert torch.equal(unary_from_probabilities(video, class_axis=-4)[:, 0], unary_from_probabilities(p[0]))


def test_no_class_is_ruled_out() -> None:
    sure = np.array([1.0, 0.0], np.float32).reshape(2, 1, 1)
    assert np.allclose(unary_from_probabilities(sure)[:, 0, 0], [0, -np.log(1e-5)])


def test_labels_are_believed_as_far_as_said() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    p = np.exp(-unary_from_labels(labels, 3, confidence=0.7))
    assert np.allclose(p[:, 0, 0], [0.7, 0.15, 0.15])
    assert np.allclose(p[:, 1, 0], [0.15, 0.15, 0.7])
    assert np.allclose(p[:, 1, 1], 1 / 3)
    scribbles = np.exp(-unary_from_labels(labels, 2, confidence=0.7, zero_unsure=True))
    assert np.allclose(scribbles[:, 0, 0], 0.5)
    assert np.allclose(scribbles[:, 1, 0], [0.3, 0.7])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unary_from_probabilities(LOGITS), "unary_from_logits"),
        (lambda: unary_from_probabilities(np.full((2, 3, 3), 0.6)), "sum to 1"),
        (lambda: unary_from_probabilities(np.full((2, 3, 3), np.nan)), "finite"),
        (lambda: unary_from_logits(np.full((2, 3, 3), np.inf)), "finite"),
        (lambda: unary_from_logits(np.full((2, 3, 3), 3e38)), "at most 1e\\+30"),
        (lambda: unary_from_logits(np.zeros((2, 3, 3), int)), "logits must be floating"),
        (lambda: unary_from_logits(np.zeros((1, 3, 3))), "two classes or more"),
        (lambda: unary_from_probabilities(np.ones((1, 3, 3))), "two classes or more"),
        (lambda: unary_from_labels(np.full((2, 2), 3), 3, confidence=0.7), "contain the value 3 in 4 pixels"),
        (lambda: unary_from_labels(np.zeros((2, 2), int), 3, confidence=1), "between 0 and 1"),
        (lambda: unary_from_labels(np.zeros((2, 2), int), 1, confidence=0.5), "at least 2"),
    ],
)
def test_bad_input_is_an_error(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
