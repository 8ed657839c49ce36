"""Losses: against literal implementations in Python loops, gradients against finite differences; the registry."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import atrous.registry
from atrous.errors import InputError
from atrous.training.losses import (
    LOSSES,
    PixelSum,
    boundary,
    cross_entropy,
    dice,
    focal,
    lovasz_softmax,
    register_loss,
)
from atrous.training.objective import make_terms
from atrous.training.recipe import Recipe, check_recipe
from atrous.training.stages import train

CLASSES = 4
WEIGHTS = [0.5, 2.0, 0.0, 1.5]
Array = np.ndarray


def example(seed: int, height: int = 5, width: int = 6) -> tuple[Tensor, Tensor]:
    """Float64 logits ``(2, 4, H, W)`` and labels in patches, some ignored; class 3 is in the second image only."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, (2, height, width)).repeat(2, 1).repeat(2, 2)[:, :height, :width]
    labels[1, -2:, -2:] = 3
    labels[random.random(labels.shape) < 0.2] = 255
    logits = 2 * random.standard_normal((2, CLASSES, height, width))
    return torch.from_numpy(logits), torch.from_numpy(labels)


def softmax(logits: Array) -> Array:
    probabilities = np.zeros_like(logits)
    for b, y, x in np.ndindex(logits.shape[0], *logits.shape[2:]):
        powers = [math.exp(value) for value in logits[b, :, y, x]]
        probabilities[b, :, y, x] = [power / sum(powers) for power in powers]
    return probabilities


def pixels(labels: Array) -> list[tuple[int, int, int]]:
    return [place for place in np.ndindex(labels.shape) if labels[place] != 255]


def literal_cross_entropy(logits: Array, labels: Array, weights: Any = None, smoothing: float = 0.0) -> float:
    probabilities, weights = softmax(logits), weights or [1.0] * CLASSES
    total = size = 0.0
    for b, y, x in pixels(labels):
        for label in range(CLASSES):
            target = smoothing / CLASSES + (1 - smoothing) * (label == labels[b, y, x])
            total -= weights[label] * target * math.log(probabilities[b, label, y, x])
        size += weights[labels[b, y, x]]
    return total / size


def literal_focal(logits: Array, labels: Array, weights: Any = None, gamma: float = 2.0) -> float:
    probabilities, weights = softmax(logits), weights or [1.0] * CLASSES
    total = size = 0.0
    for b, y, x in pixels(labels):
        label = labels[b, y, x]
        p = probabilities[b, label, y, x]
        total -= weights[label] * (1 - p) ** gamma * math.log(p)
        size += weights[label]
    return total / size


def literal_dice(logits: Array, labels: Array, smooth: float = 1.0) -> float:
    probabilities = softmax(logits)
    scores = []
    for label in range(CLASSES):
        overlap = predicted = true = 0.0
        for b, y, x in pixels(labels):
            overlap += probabilities[b, label, y, x] * (labels[b, y, x] == label)
            predicted += probabilities[b, label, y, x]
            true += labels[b, y, x] == label
        if true:
            scores.append((2 * overlap + smooth) / (predicted + true + smooth))
    return 1 - sum(scores) / len(scores)


def literal_lovasz(logits: Array, labels: Array) -> float:
    """The Lovász extension by its definition: errors in falling order, each times what it adds to the Jaccard loss."""
    probabilities = softmax(logits)
    losses, places = [], pixels(labels)
    for label in range(CLASSES):
        true = {place for place in places if labels[place] == label}
        if not true:
            continue
        errors = {
            (b, y, x): abs((labels[b, y, x] == label) - probabilities[b, label, y, x]) for b, y, x in pixels(labels)
        }
        wrong: set[tuple[int, int, int]] = set()
        loss, before = 0.0, 0.0
        for place in sorted(errors, key=lambda place: -errors[place]):
            wrong.add(place)
            predicted = true ^ wrong  # the pixels called this class when exactly these are wrong
            jaccard = 1 - len(true & predicted) / len(true | predicted)
            loss, before = loss + errors[place] * (jaccard - before), jaccard
        losses.append(loss)
    return sum(losses) / len(losses)


def literal_boundary(logits: Array, labels: Array) -> float:
    probabilities = softmax(logits)
    total = 0.0
    for b, y, x in pixels(labels):
        here = [(v, u) for c, v, u in pixels(labels) if c == b]
        for label in range(CLASSES):
            inside = [(v, u) for v, u in here if labels[b, v, u] == label]
            outside = [(v, u) for v, u in here if labels[b, v, u] != label]
            if inside and outside:
                own = labels[b, y, x] == label
                nearest = min(math.dist((y, x), place) for place in (outside if own else inside))
                total += probabilities[b, label, y, x] * (1 - nearest if own else nearest)
    return total / len(pixels(labels))


def value(found: Tensor | PixelSum) -> Tensor:
    return found.mean() if isinstance(found, PixelSum) else found


WEIGHTED = torch.tensor(WEIGHTS)
CASES: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Array, Array], float]]] = {
    "cross_entropy": (cross_entropy, literal_cross_entropy),
    "cross_entropy, weighted": (
        lambda x, y: cross_entropy(x, y, class_weights=WEIGHTED.to(x), label_smoothing=0.1),
        lambda x, y: literal_cross_entropy(x, y, WEIGHTS, 0.1),
    ),
    "focal": (focal, literal_focal),
    "focal, weighted": (
        lambda x, y: focal(x, y, class_weights=WEIGHTED.to(x), gamma=0.5),
        lambda x, y: literal_focal(x, y, WEIGHTS, 0.5),
    ),
    "dice": (dice, literal_dice),
    "dice, not smooth": (lambda x, y: dice(x, y, smooth=0.0), lambda x, y: literal_dice(x, y, 0.0)),
    "lovasz_softmax": (lovasz_softmax, literal_lovasz),
    "boundary": (boundary, literal_boundary),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_that_of_a_literal_implementation(case: str, seed: int) -> None:
    loss, literal = CASES[case]
    logits, labels = example(seed)
    expected = literal(logits.numpy(), labels.numpy())
    assert float(value(loss(logits, labels))) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert float(value(loss(logits.float(), labels))) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_finite_differences(case: str) -> None:
    loss, _ = CASES[case]
    logits, labels = example(7, 3, 4)
    assert torch.autograd.gradcheck(lambda x: value(loss(x, labels)), logits.requires_grad_(), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_ignored_pixels_change_nothing_and_get_no_gradient(case: str) -> None:
    loss, _ = CASES[case]
    logits, labels = example(3)
    ignored = (labels == 255)[:, None].expand_as(logits)
    other = torch.where(ignored, 30 * torch.randn_like(logits), logits).requires_grad_()
    found = value(loss(other, labels))
    torch.testing.assert_close(found, value(loss(logits, labels)))
    found.backward()
    assert other.grad is not None
    assert not other.grad[ignored].any()
    assert other.grad[~ignored].any()


@pytest.mark.parametrize("case", CASES)
def test_where_every_pixel_is_ignored_loss_and_gradient_are_zero(case: str) -> None:
    loss, _ = CASES[case]
    logits = (50 * torch.randn(2, CLASSES, 5, 6)).requires_grad_()
    found = value(loss(logits, torch.full((2, 5, 6), 255)))
    found.backward()
    assert found.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("case", CASES)
def test_extreme_logits_give_finite_gradients(case: str) -> None:
    loss, _ = CASES[case]
    _, labels = example(3)
    for sign in (1, -1):
        right = torch.nn.functional.one_hot(labels.masked_fill(labels == 255, 0), CLASSES).movedim(-1, 1)
        logits = (sign * 1000.0 * right.float()).requires_grad_()
        found = value(loss(logits, labels))
        found.backward()
        assert logits.grad is not None
        assert found.isfinite()
        assert logits.grad.isfinite().all()


def test_perfect_predictions_cost_nothing() -> None:
    _, labels = example(3)
    logits = 1000.0 * torch.nn.functional.one_hot(labels.masked_fill(labels == 255, 0), CLASSES).movedim(-1, 1).float()
    for loss in (cross_entropy, focal, dice, lovasz_softmax):
        assert float(value(loss(logits, labels))) == pytest.approx(0, abs=1e-6)


def test_dice_and_lovasz_are_1_minus_dice_and_iou_of_hard_predictions() -> None:
    labels = torch.tensor([[[0, 0, 0, 1], [255, 1, 1, 1]]])
    called = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 0]]])
    logits = 1000.0 * torch.nn.functional.one_hot(called, 2).movedim(-1, 1).float()
    assert float(dice(logits, labels, smooth=0.0)) == pytest.approx(1 - (4 / 6 + 6 / 8) / 2)
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(1 - (2 / 4 + 3 / 5) / 2)


def mean_error(logits: Tensor, labels: Tensor, *, power: float, scale: float = 1.0) -> Tensor:
    labelled = labels != 255
    true = logits.softmax(1).gather(1, labels.masked_fill(~labelled, 0)[:, None])[:, 0]
    return scale * ((1 - true) ** power * labelled).sum() / labelled.sum().clamp(min=1)


@pytest.fixture
def registered() -> Any:
    register_loss("mean_error")(mean_error)
    yield
    LOSSES._entries.pop("mean_error")
    LOSSES._owners.pop("mean_error")


def test_a_loss_of_ones_own_is_registered_and_trains(
    registered: None, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe(loss__name="mean_error", loss__options={"power": 2}, training__epochs=0.5)
    losses: list[float] = []
    train(recipe, tmp_path / "run", on_step=lambda now: losses.append(now.loss))
    assert losses[0] == pytest.approx(0.75**2, abs=0.1)  # four classes, all as probable
    with pytest.raises(InputError, match=r"options\.power: mean_error needs this option"):
        make_terms("mean_error", {})
    with pytest.raises(InputError, match="already a loss 'mean_error'"):
        register_loss("mean_error")(literal_focal)  # type: ignore[type-var]


def test_a_loss_is_named_by_module_and_function(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_losses", SimpleNamespace(mean_error=mean_error))
    loss = make_recipe(loss__name="my_losses:mean_error", loss__options={"power": 1.0}).loss
    (term,) = make_terms(loss.name, loss.options)
    assert term.function is mean_error


def test_a_loss_comes_from_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "installed", "package.losses:installed"

        def load(self) -> None:
            register_loss("installed")(mean_error)

    monkeypatch.setattr(atrous.registry, "entry_points", lambda group: [Point()] if group == "atrous.losses" else [])
    try:
        assert make_terms("installed", {"power": 1.0})[0].function is mean_error
    finally:
        LOSSES._entries.pop("installed", None)
        LOSSES._owners.pop("installed", None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": 1.0}),
        ("dice", {}),
        ("lovasz_softmax", {}),
        ({"cross_entropy": 1.0, "dice": 0.5, "boundary": 0.01}, {"dice": {"smooth": 0.0}}),
    ],
)
def test_a_recipe_trains_with_any_loss(
    make_recipe: Callable[..., Recipe], tmp_path: Path, name: Any, options: dict[str, Any]
) -> None:
    recipe = make_recipe(
        loss__name=name,
        loss__options=options,
        optimizer__name="adamw",
        optimizer__lr=0.005,
        training__accumulate=2,
        training__epochs=6,
    )
    assert check_recipe(recipe.model_dump(mode="json"), "again") == recipe
    losses: list[float] = []
    train(recipe, tmp_path / "run", on_step=lambda now: losses.append(now.loss))
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3])
