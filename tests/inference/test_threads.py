"""One model in several threads: nothing of it may change under another thread's hands."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import atrous
from atrous.models import SegmentationModel, create_model
from atrous.models.surgery.convolutionalize import convolutionalize

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
ROUNDS = 6


def logits(model: SegmentationModel, **options: Any) -> np.ndarray:
    found = atrous.predict(model, IMAGE, keep_probabilities=True, **options)
    assert found.class_probabilities is not None
    return found.class_probabilities.values


def together(*jobs: Callable[[], Any]) -> list[list[Any]]:
    """The results of jobs that begin at the same moment, several times."""
    start = Barrier(len(jobs), timeout=60)

    def repeat(job: Callable[[], Any]) -> list[Any]:
        results = []
        for _ in range(ROUNDS):
            start.wait()
            results.append(job())
        return results

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(repeat, jobs))


def build(backbone: str = "test_resnet") -> SegmentationModel:
    torch.manual_seed(0)
    return create_model("deeplabv3plus", backbone=backbone, num_classes=4, channels=16, output_stride=16).eval()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_predictions_at_several_output_strides(backbone: str, training: bool) -> None:
    strides = [8, 16, 32, 8, None]
    alone = [logits(build(backbone), output_stride=stride) for stride in strides]
    model = build(backbone).train(training)  # never predicted with: the first ones come together, too
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = together(*(lambda stride=stride: logits(model, output_stride=stride) for stride in strides))  # type: ignore[misc]
    for results, expected in zip(found, alone, strict=True):
        for result in results:
            np.testing.assert_array_equal(result, expected)
    assert model.output_stride == 16
    assert all(module.training is training for module in model.modules())
    for key, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, state[key]), key


def test_setting_the_output_stride_is_one_step() -> None:
    model = build()
    expected = {}
    for stride in (8, 32):
        model.output_stride = stride
        expected[stride] = repr(model)

    def set_to(stride: int) -> None:
        model.output_stride = stride

    together(*(lambda stride=stride: set_to(stride) for stride in (8, 32, 8, 32)))  # type: ignore[misc]
    assert repr(model) == expected[model.output_stride]


def test_building_and_surgery_beside_a_prediction() -> None:
    """torch.fx intercepts the calls of every module in the process while it reads a network."""
    model = build()
    expected = logits(model)
    classifier = torchvision.models.squeezenet1_1(weights=None, num_classes=5)
    own = torchvision.models.squeezenet1_1(weights=None, num_classes=5).features
    call = torch.nn.Module.__call__
    found = together(
        lambda: [logits(model) for _ in range(5)],
        lambda: convolutionalize(classifier),
        lambda: convolutionalize(classifier),
        lambda: create_model("deeplabv3", backbone=own, num_classes=3),
        lambda: classifier(torch.zeros(1, 3, 64, 64)).shape,
    )
    for results in found[0]:
        for result in results:
            np.testing.assert_array_equal(result, expected)
    assert torch.nn.Module.__call__ is call
    assert all(module.training for module in classifier.modules())
