"""Gradients of the CRF, and what training it brings."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.crf import Bilateral, DenseCRF, Gaussian


def noisy_squares(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of a square on a ground, scores with much noise, and the labels."""
    y, x = torch.meshgrid(torch.arange(16), torch.arange(18), indexing="ij")
    labels = torch.stack([((y - 7 - i % 3).abs() < 5) & ((x - 8 + i % 4).abs() < 5) for i in range(count)]).long()
    images = 90.0 + 80 * labels[..., None] + 12 * torch.randn(count, 16, 18, 3)
    scores = F.one_hot(labels, 2).movedim(-1, 1) + 1.2 * torch.randn(count, 2, 16, 18)
    return images, -scores, labels


def test_gradients_in_unary_weights_and_compatibility() -> None:
    image = 255 * torch.rand(3, 4, 3)
    unary = torch.rand(3, 3, 4, dtype=torch.float64, requires_grad=True)
    kernels = [Gaussian(2, [1, 2, 1.5]), Bilateral(3, 60, 2, 1 - torch.eye(3))]
    crf = DenseCRF(kernels, 3, trainable=True).double()

    def refine(unary: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(dict(crf.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(crf, named, (image, unary))

    assert len(list(crf.parameters())) == 3
    assert torch.autograd.gradcheck(refine, (unary, *crf.parameters()))


def test_frozen_it_asks_for_no_gradient_but_passes_them_on() -> None:
    crf = DenseCRF([Gaussian(2, 2)])
    unary = torch.rand(2, 3, 4, requires_grad=True)
    crf(None, unary).square().sum().backward()
    assert unary.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in crf.parameters())
    assert all(p.requires_grad for p in crf.requires_grad_().parameters())


@pytest.mark.slow
def test_learned_weights_beat_fixed_ones() -> None:
    images, unary, labels = noisy_squares(12)
    held_out = noisy_squares(6)
    crf = DenseCRF([Gaussian(2, 0.3), Bilateral(8, 30, 0.3, [[0, 1], [1, 0]])], 4, trainable=True)

    def loss(images: Tensor, unary: Tensor, labels: Tensor) -> Tensor:
        return F.nll_loss(crf(images, unary).clamp(min=1e-8).log(), labels)

    def right() -> float:
        with torch.no_grad():
            return (crf(*held_out[:2]).argmax(1) == held_out[2]).float().mean().item()

    before, fixed = loss(*held_out).item(), right()
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.1)
    for _ in range(25):
        optimizer.zero_grad()
        loss(images, unary, labels).backward()
        optimizer.step()
    assert loss(*held_out).item() < 0.5 * before
    assert right() > fixed + 0.02
