"""The mean field in Triton beside the plain one."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from atrous.crf import lattice
from atrous.crf.gpu import mean_field as gpu
from atrous.crf.lattice import Lattice
from atrous.crf.mean_field import Messages, Normalization, Pairwise
from atrous.crf.mean_field import mean_field as plain
from atrous.crf.pairwise import Bilateral, Gaussian

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZE = (9, 13)


@pytest.fixture
def in_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels serve, wherever they run."""
    monkeypatch.setattr(lattice, "has_triton", lambda _: True)


def image() -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    area = (x + y // 3 > 7).float() * 90 + 60
    return (area[..., None] + 20 * torch.rand(*SIZE, 3)).to(DEVICE)


def energies(classes: int) -> Tensor:
    unary = 2 * torch.rand(classes, *SIZE)
    unary[0, :, :6] -= 3
    unary[-1, :, 6:] -= 3
    return unary.to(DEVICE)


def kernels(classes: int, *, by_class: bool = False, compatible: bool = False) -> list[Pairwise]:
    """Smoothness (three directions) and appearance (six)."""
    colours = Bilateral(9, 20, 1).features(image(), SIZE, "xy")
    places = Gaussian(2, 1).features(image(), SIZE, "xy")
    weights = [torch.tensor(1.5), 2 + torch.rand(classes) if by_class else torch.tensor(2.5)]
    mixes = [torch.rand(classes, classes) if compatible else None for _ in range(2)]
    return [Pairwise(f, w, m) for f, w, m in zip((places, colours), weights, mixes, strict=True)]


def difference(
    unary: Tensor,
    pairwise: Sequence[Pairwise],
    iterations: int = 3,
    tolerance: float | None = None,
) -> float:
    expected = plain(unary.flatten(1).T, Messages(pairwise), iterations, tolerance).T.reshape(unary.shape)
    return float((gpu.MeanField(unary, pairwise).distribution(iterations, tolerance) - expected).abs().max())


@pytest.mark.parametrize("axes", [1, 2, 5, 9])
def test_corners_and_weights_are_the_plain_lattices(axes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = (6 * torch.rand(SIZE[0] * SIZE[1], axes)).round(decimals=1).to(DEVICE)  # some lie on boundaries
    features[:5] = 0
    expected = Lattice(features.cpu())
    monkeypatch.setattr(lattice, "has_triton", lambda _: True)
    ours = Lattice(features.T.contiguous().T)
    assert torch.equal(ours.vertices.cpu(), expected.vertices)
    assert torch.equal(ours.weights.cpu(), expected.weights)
    assert torch.equal(ours.neighbours.cpu(), expected.neighbours)


@pytest.mark.usefixtures("in_triton")
@pytest.mark.parametrize("classes", [1, 2, 8, 21])
def test_any_number_of_classes(classes: int) -> None:
    assert difference(energies(classes), kernels(classes)) < 2e-5


@pytest.mark.usefixtures("in_triton")
@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_every_normalisation(normalization: Normalization) -> None:
    less = 20 if normalization == "none" else 1
    pairwise = [Pairwise(p.features, p.weight / less, None, normalization) for p in kernels(5)]
    assert difference(energies(5), pairwise) < 2e-5


@pytest.mark.usefixtures("in_triton")
def test_weights_by_class_and_compatibilities() -> None:
    assert difference(energies(5), kernels(5, by_class=True)) < 2e-5
    assert difference(energies(5), kernels(5, compatible=True)) < 2e-5
    assert difference(energies(5), kernels(5, by_class=True, compatible=True)) < 2e-5


@pytest.mark.usefixtures("in_triton")
def test_one_kernel_none_and_until_it_settles() -> None:
    assert difference(energies(3), kernels(3)[:1]) < 2e-5
    assert difference(energies(3), kernels(3)[1:], iterations=1) < 2e-5
    assert difference(energies(3), kernels(3), iterations=0) < 1e-6
    unary, pairwise = energies(3), kernels(3)
    assert difference(unary, pairwise, iterations=30, tolerance=1e-2) < 2e-5
    field = gpu.MeanField(unary, pairwise)
    settled, full = field.distribution(30, 1e-2), field.distribution(8, None)
    assert 1e-6 < (settled - full).abs().max() < 0.1


@pytest.mark.usefixtures("in_triton")
def test_labels_are_the_likeliest_classes() -> None:
    field = gpu.MeanField(energies(7), kernels(7))
    labels = field.labels(2, None)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), field.distribution(2, None).argmax(0))
