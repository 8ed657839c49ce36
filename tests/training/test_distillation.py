"""Distillation: the share and the divergence are Hinton's, the teacher's classes may be in any order, and it helps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from atrous.grid import PIXELS
from atrous.labels import LabelSet
from atrous.models.base import Output
from atrous.models.create import create_model
from atrous.training import Progress, Recipe, RecipeError, train
from atrous.training.distillation import Teacher
from atrous.training.losses import PixelSum
from atrous.training.run_folder import load_state
from atrous.training.sections import DistillationSection

MakeRecipe = Callable[..., Recipe]
NAMES = ("ground", "red", "green", "blue")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A model of the squares' classes in another order, and one class more."""
    torch.manual_seed(3)
    labels = LabelSet.of(("green", "ground", "other", "blue", "red"))
    model = create_model("fcn32s", backbone="test_resnet", label_set=labels, pretrained=False)
    return model.eval().save(tmp_path / "teacher")


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_loss_is_shared_with_a_tempered_divergence(teacher: Path, share: float) -> None:
    section = DistillationSection(teacher=str(teacher), share=share, temperature=2.0)
    own = Teacher(section, LabelSet.of(NAMES), torch.device("cpu"))
    images = torch.randint(0, 256, (2, 3, 40, 33), dtype=torch.uint8)
    labels = torch.randint(0, 4, (2, 40, 33))
    labels[0, :9] = 255
    logits = torch.randn(2, 4, 40, 33, requires_grad=True)
    total, pixels = own.add_to(
        PixelSum(logits.sum(), torch.tensor(50.0)), Output("main", logits, PIXELS), images, labels, False
    )

    expected = own.model(own.model.preprocess(images))[:, [1, 4, 0, 3]]
    every = F.kl_div((logits / 2).log_softmax(1), (expected / 2).softmax(1), reduction="none").sum(1)
    divergence = 4 * every[labels != 255].mean()
    assert pixels == 50
    torch.testing.assert_close(total, (1 - share) * logits.sum() + share * divergence * 50)


def test_a_student_comes_close_to_its_teacher_without_the_ground_truth(
    make_recipe: MakeRecipe, teacher: Path, tmp_path: Path
) -> None:
    settings = {"distillation__teacher": str(teacher), "distillation__share": 1.0, "optimizer__name": "adamw"}
    losses: list[float] = []
    recipe = make_recipe(training__steps=8, optimizer__lr=0.01, **settings)
    train(recipe, tmp_path / "run", on_step=lambda now: losses.append(now.loss))
    assert min(losses[-3:]) < losses[0] / 2


def test_an_interrupted_run_resumes_bit_exactly(make_recipe: MakeRecipe, teacher: Path, tmp_path: Path) -> None:
    recipe = make_recipe(training__steps=3, distillation__teacher=str(teacher), log__save_minutes=0)

    def stop(now: Progress) -> None:
        if now.step == 2:
            raise KeyboardInterrupt

    train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", on_step=stop)
    train(recipe, tmp_path / "cut", resume=True)
    one, other = (load_state(tmp_path / name)[0]["model"] for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_teacher_of_other_classes_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    labels = LabelSet.of(("ground", "red", "cat", "dog"))
    create_model("fcn32s", backbone="test_resnet", label_set=labels, pretrained=False).save(tmp_path / "other")
    recipe = make_recipe(distillation__teacher=str(tmp_path / "other"))
    with pytest.raises(
        RecipeError, match=r"distillation\.teacher: .*doesn't know these classes of the data: green, blue"
    ):
        train(recipe, tmp_path / "run")
