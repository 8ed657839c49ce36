"""What is minimised: sums and their divisors, several losses, outputs and heads, hard pixels; ignored pixels."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from atrous.errors import InputTypeError
from atrous.grid import PIXELS
from atrous.models.base import Output
from atrous.training.losses import PixelSum, boundary, cross_entropy, dice
from atrous.training.objective import SegmentationLoss, Term, make_terms


def summed(loss: SegmentationLoss, logits: Tensor, labels: Tensor, easy: float = 0.0) -> PixelSum:
    return loss([Output("main", logits, PIXELS)], {"main": labels}, easy)


def mean(loss: SegmentationLoss, logits: Tensor, labels: Tensor) -> Tensor:
    total, size = summed(loss, logits, labels)
    return total / size


def example(seed: int = 0, void_rows: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 7, 9, generator=random)
    labels = torch.randint(0, 5, (2, 7, 9), generator=random).to(torch.uint8)
    labels[0, :void_rows] = 255
    return logits, labels


LOSSES = {
    "plain": SegmentationLoss(),
    "weighted": SegmentationLoss(torch.tensor([0.5, 0, 1, 2, 3])),
    "smoothed": SegmentationLoss(terms=make_terms("cross_entropy", {"label_smoothing": 0.1})),
    "hard": SegmentationLoss(hard_share=0.25),
    "below": SegmentationLoss(hard_share=0.05, hard_below=0.7),
    "focal": SegmentationLoss(torch.tensor([0.5, 0, 1, 2, 3]), make_terms("focal", {"gamma": 0.5})),
    "dice": SegmentationLoss(terms=make_terms("dice", {"smooth": 0.0})),
    "lovasz": SegmentationLoss(terms=make_terms("lovasz_softmax", {})),
    "boundary": SegmentationLoss(terms=make_terms("boundary", {})),
    "several": SegmentationLoss(
        torch.tensor([0.5, 0, 1, 2, 3]),
        make_terms({"cross_entropy": 1.0, "dice": 0.5, "lovasz_softmax": 0.2, "boundary": 0.01}, {}),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given_as", [torch.uint8, torch.int64])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_all_ignored_is_exactly_zero_with_zero_gradients(
    loss: SegmentationLoss, dtype: torch.dtype, given_as: torch.dtype
) -> None:
    logits = (50 * torch.randn(2, 5, 7, 9)).to(dtype).requires_grad_()
    total, size = summed(loss, logits, torch.full((2, 7, 9), 255, dtype=given_as))
    total.backward()
    assert total.dtype == size.dtype == torch.float32
    assert total.item() == size.item() == 0
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert not logits.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 0, 1, 2, 3])])
def test_the_mean_is_torchs_over_the_pixels_that_are_not_ignored(weights: Tensor | None, smoothing: float) -> None:
    logits, labels = example()
    kept = labels != 255
    expected = F.cross_entropy(
        logits.permute(0, 2, 3, 1)[kept], labels[kept].long(), weights, label_smoothing=smoothing
    )
    torch.testing.assert_close(
        mean(SegmentationLoss(weights, make_terms("cross_entropy", {"label_smoothing": smoothing})), logits, labels),
        expected,
    )


def test_losses_of_bfloat16_logits_are_computed_in_float32() -> None:
    logits, labels = torch.randn(1, 3, 64, 64).bfloat16(), torch.randint(0, 3, (1, 64, 64))
    assert torch.equal(*(summed(SegmentationLoss(), scores, labels)[0] for scores in (logits, logits.float())))


PIXELWISE = [loss for name, loss in LOSSES.items() if name not in ("dice", "lovasz", "several")]


@pytest.mark.parametrize("loss", PIXELWISE)
def test_parts_of_a_batch_add_up_to_it(loss: SegmentationLoss) -> None:
    logits, labels = example()
    whole = summed(loss, logits, labels)
    parts = [summed(loss, logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    for number in (0, 1):
        torch.testing.assert_close(parts[0][number] + parts[1][number], whole[number])


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0.01, 1), st.integers(0, 7))
def test_hard_pixels_are_the_least_probable_ones_of_each_image(seed: int, share: float, void_rows: int) -> None:
    logits, labels = example(seed, void_rows)
    surprise = F.cross_entropy(logits, labels.long(), ignore_index=255, reduction="none")
    expected, count = 0.0, 0
    for image, mask in zip(surprise, labels, strict=True):
        labelled = image[mask != 255].sort(descending=True).values
        chosen = labelled[: math.ceil(torch.tensor(share) * len(labelled))]
        expected, count = expected + float(chosen.sum()), count + len(chosen)
    total, size = summed(SegmentationLoss(hard_share=share), logits, labels)
    assert size == count
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_pixels_below_a_probability_count_beside_the_hard_share() -> None:
    logits, labels = example()
    kept = labels != 255
    probability = logits.softmax(1).permute(0, 2, 3, 1)[kept].gather(1, labels[kept].long()[:, None])
    few = SegmentationLoss(hard_share=1e-6, hard_below=0.3)
    assert summed(few, logits, labels)[1] == int((probability < 0.3).sum())
    assert summed(SegmentationLoss(hard_share=0.9, hard_below=0.01), logits, labels)[1] >= int(0.9 * kept.sum())


def test_the_hard_share_falls_from_everything() -> None:
    logits, labels = example(void_rows=0)
    loss = SegmentationLoss(hard_share=0.2)
    sizes = [float(summed(loss, logits, labels, easy=easy)[1]) for easy in (1.0, 0.5, 0.0)]
    assert sizes == [2 * 63, 2 * math.ceil(0.6 * 63), 2 * math.ceil(0.2 * 63)]


def test_further_outputs_count_by_their_weight_on_the_pixels_the_first_finds_hard() -> None:
    logits, labels = example()
    other = torch.randn_like(logits)
    loss = SegmentationLoss(hard_share=0.5)
    maps = [Output("main", logits, PIXELS), Output("aux", other, PIXELS, weight=0.4)]
    total, size = loss(maps, {"main": labels})
    assert torch.equal(size, summed(loss, logits, labels)[1])
    surprise = F.cross_entropy(logits, labels.long(), ignore_index=255, reduction="none")
    order = [
        p[m != 255].topk(math.ceil(0.5 * int((m != 255).sum()))).values.min()
        for p, m in zip(surprise, labels, strict=True)
    ]
    hard = torch.stack([(p >= o) & (m != 255) for p, o, m in zip(surprise, order, labels, strict=True)])
    theirs = F.cross_entropy(other.permute(0, 2, 3, 1)[hard], labels[hard].long(), reduction="sum")
    torch.testing.assert_close(total, summed(loss, logits, labels)[0] + 0.4 * theirs)


def test_each_head_is_compared_with_its_own_labels_and_losses_are_added() -> None:
    logits, labels = example()
    shapes, truth = torch.randn(2, 3, 7, 9), torch.randint(0, 3, (2, 7, 9)).to(torch.uint8)
    heads = [Output("main", logits, PIXELS), Output("geometric", shapes, PIXELS)]
    total, size = SegmentationLoss()(heads, {"main": labels, "geometric": truth, "nobodys": truth})
    torch.testing.assert_close(
        total, summed(SegmentationLoss(), logits, labels)[0] + summed(SegmentationLoss(), shapes, truth)[0]
    )
    assert size == 2 * 63  # what any head has labels for, once
    assert SegmentationLoss()(heads, {"main": torch.full_like(labels, 255), "geometric": truth})[1] == 2 * 63
    assert SegmentationLoss()(heads[:1], {"main": labels, "geometric": truth})[1] == 2 * 63 - 4 * 9


def test_class_weights_and_hard_pixels_belong_to_the_labels_they_are_of() -> None:
    logits, labels = example()
    shapes, truth = torch.randn(2, 3, 7, 9), torch.randint(0, 3, (2, 7, 9))
    heads = [Output("main", logits, PIXELS), Output("geometric", shapes, PIXELS)]
    weights = torch.tensor([0.5, 0, 1, 2, 3])
    loss, plain = SegmentationLoss(weights, hard_share=0.25), SegmentationLoss(hard_share=0.25)
    total, _ = loss(heads, {"main": labels, "geometric": truth})
    torch.testing.assert_close(total, summed(loss, logits, labels)[0] + summed(plain, shapes, truth)[0])


def test_a_loss_that_is_a_mean_counts_in_each_part_by_its_labelled_pixels() -> None:
    logits, labels = example()
    loss = SegmentationLoss(terms=make_terms("dice", {}))
    parts = [summed(loss, logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    assert [float(part.pixels) for part in parts] == [63 - 36, 63]
    for i, part in enumerate(parts):
        torch.testing.assert_close(part.total, dice(logits[i : i + 1], labels[i : i + 1].long()) * part.pixels)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 0, 1, 2, 3])])
def test_several_losses_are_averaged_one_by_one_and_added_by_their_weights(weights: Tensor | None) -> None:
    logits, labels = example()
    terms = make_terms({"cross_entropy": 2.0, "dice": 0.5, "boundary": 0.1}, {"dice": {"smooth": 3.0}})
    target = labels.long()
    expected = 2 * cross_entropy(logits, target, class_weights=weights).mean()
    expected = expected + 0.5 * dice(logits, target, smooth=3.0) + 0.1 * boundary(logits, target).mean()
    torch.testing.assert_close(mean(SegmentationLoss(weights, terms), logits, labels), expected)


def test_a_loss_must_be_a_scalar_or_a_sum_over_pixels() -> None:
    logits, labels = example()
    with pytest.raises(InputTypeError, match=r"the loss <lambda> returned a tensor \(2, 7, 9\)"):
        summed(SegmentationLoss(terms=(Term(lambda x, y: x[:, 0]),)), logits, labels)
    with pytest.raises(InputTypeError, match="returned float"):
        summed(SegmentationLoss(terms=(Term(lambda x, y: 1.0),)), logits, labels)  # type: ignore[arg-type, return-value]
