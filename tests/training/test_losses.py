"""The loss: a mean over judged pixels, exactly zero where there are none."""

import pytest
import torch
import torch.nn.functional as F

from atrous.training.losses import cross_entropy, judged_pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.uint8, torch.int64])
def test_all_ignored_is_exactly_zero_with_zero_gradients(dtype: torch.dtype, given: torch.dtype) -> None:
    logits = (50 * torch.randn(2, 5, 7, 9)).to(dtype).requires_grad_()
    loss = cross_entropy(logits, torch.full((2, 7, 9), 255, dtype=given))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert not logits.grad.any()


def test_it_is_the_mean_over_the_pixels_that_are_not_ignored() -> None:
    logits, labels = torch.randn(2, 5, 7, 9), torch.randint(0, 5, (2, 7, 9)).to(torch.uint8)
    labels[0, :4] = 255
    kept = labels != 255
    expected = F.cross_entropy(logits.permute(0, 2, 3, 1)[kept], labels[kept].long())
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    assert judged_pixels(labels) == kept.sum()


def test_bfloat16_logits_are_judged_in_float32() -> None:
    logits, labels = torch.randn(1, 3, 64, 64).bfloat16(), torch.randint(0, 3, (1, 64, 64))
    assert torch.equal(cross_entropy(logits, labels), cross_entropy(logits.float(), labels))


def test_parts_divided_by_the_pixels_of_the_whole_add_up_to_it() -> None:
    logits, labels = torch.randn(4, 3, 8, 8), torch.randint(0, 3, (4, 8, 8))
    labels[2:, :7] = 255
    pixels = judged_pixels(labels)
    parts = [cross_entropy(logits[i : i + 2], labels[i : i + 2], pixels) for i in (0, 2)]
    torch.testing.assert_close(parts[0] + parts[1], cross_entropy(logits, labels))
