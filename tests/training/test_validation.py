"""The validation loss, and the metrics of a validation."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from atrous.data.opening import open_dataset
from atrous.evaluation.evaluate import evaluate
from atrous.models.create import create_model
from atrous.training.objective import SegmentationLoss, labels_at
from atrous.training.recipe import Recipe
from atrous.training.validation import validate


@pytest.mark.parametrize("name", ["deeplabv3plus", "fcn8s", "attention_to_scale"])
def test_the_loss_is_the_mean_over_the_labelled_positions(
    make_recipe: Callable[..., Recipe], squares: Path, name: str
) -> None:
    dataset = open_dataset(f"folder:{squares}", "val")
    model = create_model(name, backbone="test_resnet", label_set=dataset.label_set)
    found = validate(model, dataset, Accelerator(cpu=True), "float32", SegmentationLoss(), "trained")
    model.eval()
    total, positions = 0.0, 0
    for sample in (dataset[i] for i in range(len(dataset))):
        with torch.no_grad():
            image = torch.from_numpy(sample.image).permute(2, 0, 1)[None]
            output = model.main_output(model.preprocess(image))
            labels = labels_at(output, torch.from_numpy(sample.mask).long()[None])
            total += torch.nn.functional.cross_entropy(output.logits, labels, ignore_index=255, reduction="sum").item()
            positions += int((labels != 255).sum())
    assert found.loss == pytest.approx(total / positions, rel=1e-4)
    assert (found.evaluation.confusion.matrix == evaluate(model, dataset).confusion.matrix).all()
