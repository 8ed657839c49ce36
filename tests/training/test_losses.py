"""The loss: sums and their sizes; exactly zero where nothing is judged; weights, smoothing and hard pixels."""

import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from atrous.grid import PIXELS
from atrous.models.base import Output
from atrous.training.losses import CrossEntropy


def summed(loss: CrossEntropy, logits: Tensor, labels: Tensor, easy: float = 0.0) -> tuple[Tensor, Tensor]:
    return loss([Output("main", logits, PIXELS)], {"main": labels}, easy)


def mean(loss: CrossEntropy, logits: Tensor, labels: Tensor) -> Tensor:
    total, size = summed(loss, logits, labels)
    return total / size


def example(seed: int = 0, void_rows: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 7, 9, generator=random)
    labels = torch.randint(0, 5, (2, 7, 9), generator=random).to(torch.uint8)
    labels[0, :void_rows] = 255
    return logits, labels


LOSSES = {
    "plain": CrossEntropy(),
    "weighted": CrossEntropy(torch.tensor([0.5, 0, 1, 2, 3])),
    "smoothed": CrossEntropy(label_smoothing=0.1),
    "hard": CrossEntropy(hard_share=0.25),
    "below": CrossEntropy(hard_share=0.05, hard_below=0.7),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given_as", [torch.uint8, torch.int64])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_all_ignored_is_exactly_zero_with_zero_gradients(
    loss: CrossEntropy, dtype: torch.dtype, given_as: torch.dtype
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
    torch.testing.assert_close(mean(CrossEntropy(weights, smoothing), logits, labels), expected)


def test_bfloat16_logits_are_judged_in_float32() -> None:
    logits, labels = torch.randn(1, 3, 64, 64).bfloat16(), torch.randint(0, 3, (1, 64, 64))
    assert torch.equal(*(summed(CrossEntropy(), scores, labels)[0] for scores in (logits, logits.float())))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_parts_of_a_batch_add_up_to_it(loss: CrossEntropy) -> None:
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
        judged = image[mask != 255].sort(descending=True).values
        chosen = judged[: math.ceil(torch.tensor(share) * len(judged))]
        expected, count = expected + float(chosen.sum()), count + len(chosen)
    total, size = summed(CrossEntropy(hard_share=share), logits, labels)
    assert size == count
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_pixels_below_a_probability_are_learned_from_beside_the_hard_share() -> None:
    logits, labels = example()
    kept = labels != 255
    probability = logits.softmax(1).permute(0, 2, 3, 1)[kept].gather(1, labels[kept].long()[:, None])
    few = CrossEntropy(hard_share=1e-6, hard_below=0.3)
    assert summed(few, logits, labels)[1] == int((probability < 0.3).sum())
    assert summed(CrossEntropy(hard_share=0.9, hard_below=0.01), logits, labels)[1] >= int(0.9 * kept.sum())


def test_what_is_easy_fades_out() -> None:
    logits, labels = example(void_rows=0)
    loss = CrossEntropy(hard_share=0.2)
    sizes = [float(summed(loss, logits, labels, easy=easy)[1]) for easy in (1.0, 0.5, 0.0)]
    assert sizes == [2 * 63, 2 * math.ceil(0.6 * 63), 2 * math.ceil(0.2 * 63)]


def test_further_maps_count_by_their_weight_on_the_pixels_the_first_finds_hard() -> None:
    logits, labels = example()
    other = torch.randn_like(logits)
    loss = CrossEntropy(hard_share=0.5)
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


def test_each_head_learns_from_labels_of_its_own_and_the_losses_are_added_up() -> None:
    logits, labels = example()
    shapes, truth = torch.randn(2, 3, 7, 9), torch.randint(0, 3, (2, 7, 9)).to(torch.uint8)
    heads = [Output("main", logits, PIXELS), Output("geometric", shapes, PIXELS)]
    total, size = CrossEntropy()(heads, {"main": labels, "geometric": truth, "nobodys": truth})
    torch.testing.assert_close(
        total, summed(CrossEntropy(), logits, labels)[0] + summed(CrossEntropy(), shapes, truth)[0]
    )
    assert size == 2 * 63  # whatever any head judges, once
    assert CrossEntropy()(heads, {"main": torch.full_like(labels, 255), "geometric": truth})[1] == 2 * 63
    assert CrossEntropy()(heads[:1], {"main": labels, "geometric": truth})[1] == 2 * 63 - 4 * 9


def test_class_weights_and_hard_pixels_belong_to_the_labels_they_are_of() -> None:
    logits, labels = example()
    shapes, truth = torch.randn(2, 3, 7, 9), torch.randint(0, 3, (2, 7, 9))
    heads = [Output("main", logits, PIXELS), Output("geometric", shapes, PIXELS)]
    weights = torch.tensor([0.5, 0, 1, 2, 3])
    loss, plain = CrossEntropy(weights, hard_share=0.25), CrossEntropy(hard_share=0.25)
    total, _ = loss(heads, {"main": labels, "geometric": truth})
    torch.testing.assert_close(total, summed(loss, logits, labels)[0] + summed(plain, shapes, truth)[0])
