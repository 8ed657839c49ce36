"""The dense CRF on tensors of a GPU, beside the same on the CPU."""

import numpy as np
import pytest
import torch
from torch import Tensor

from atrous.crf import Bilateral, DenseCRF, Gaussian

pytestmark = pytest.mark.gpu

CLASSES, HEIGHT, WIDTH = 5, 60, 80


def image_and_energies() -> tuple[Tensor, Tensor]:
    """Three bands with some texture, uint8 ``(H, W, 3)``; energies ``(C, H, W)`` that half know them."""
    rng = np.random.default_rng(0)
    bands = np.repeat(np.arange(3), WIDTH // 3 + 1)[:WIDTH]
    image = 40 + 70 * bands[None, :, None] + rng.integers(0, 25, (HEIGHT, WIDTH, 3))
    unary = 2 * rng.random((CLASSES, HEIGHT, WIDTH), dtype=np.float32)
    unary -= 0.7 * (bands[None, None] == np.arange(CLASSES)[:, None, None])
    return torch.from_numpy(image.astype(np.uint8)), torch.from_numpy(unary.astype(np.float32))


def make(**options: object) -> DenseCRF:
    penalties = 1 - np.eye(CLASSES) + 0.1
    return DenseCRF([Gaussian(3, 3), Bilateral(30, 13, 4, penalties)], 10, **options)


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_the_distribution_is_the_cpus(normalization: str, device: torch.device) -> None:
    image, unary = image_and_energies()
    kernels = [Gaussian(3, 0.05), Bilateral(30, 13, 0.05)] if normalization == "none" else None
    crf = DenseCRF(kernels, 10, normalization="none") if kernels else make(normalization=normalization)
    expected = crf(image, unary)
    q = crf(image.to(device), unary.to(device))
    assert (q.device.type, q.dtype, q.shape) == (device.type, unary.dtype, unary.shape)
    assert (q.cpu() - expected).abs().max() < 1e-3


def test_a_batch_gets_the_cpus_labels(device: torch.device) -> None:
    image, unary = image_and_energies()
    images, unaries = torch.stack([image, image.flip(1)]), torch.stack([unary, unary.flip(2)])
    expected = make().labels(images, unaries)
    labels = make().to(device).labels(images.to(device), unaries.to(device))
    assert (labels.device.type, labels.dtype) == (device.type, torch.uint8)
    assert len(expected.unique()) > 1
    assert (labels.cpu() == expected).float().mean() >= 0.999


def test_gradients_are_the_cpus(device: torch.device) -> None:
    image, unary = image_and_energies()
    gradients = []
    for where in (torch.device("cpu"), device):
        crf, energies = make(trainable=True).to(where), unary.to(where, copy=True).requires_grad_()
        crf(image.to(where), energies)[0].square().sum().backward()
        every = (energies, *crf.parameters())
        assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in every)
        gradients.append([tensor.grad.flatten().cpu() for tensor in every if tensor.grad is not None])
    for expected, found in zip(*gradients, strict=True):
        assert (found - expected).norm() < 1e-3 * expected.norm()
