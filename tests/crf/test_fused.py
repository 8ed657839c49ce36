"""The compiled mean field beside the plain one, on all that may make a difference to it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numba import njit
from torch import Tensor

from atrous.crf.cpu import mean_field as cpu
from atrous.crf.cpu.lattice_kernels import find_corners
from atrous.crf.lattice import Lattice, key_strides, scale_factors
from atrous.crf.mean_field import Messages, Normalization, Pairwise
from atrous.crf.mean_field import mean_field as plain
from atrous.crf.pairwise import Bilateral, Gaussian
from atrous.ops.simd import LANES, address, exponential, largest, load, store, total, transpose

SIZE = (23, 31)  # not a multiple of sixteen pixels


def image() -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    area = (x + y // 3 > 17).float() * 90 + 60
    return area[..., None] + 20 * torch.rand(*SIZE, 3)


def energies(classes: int) -> Tensor:
    unary = 2 * torch.rand(classes, *SIZE)
    unary[0, :, :15] -= 3
    unary[-1, :, 15:] -= 3
    return unary


def kernels(classes: int) -> list[Pairwise]:
    """Smoothness, and appearance with weights by class."""
    places, colours = (k.features(image(), SIZE, "xy") for k in (Gaussian(2, 1), Bilateral(9, 20, 1)))
    return [Pairwise(places, torch.tensor(1.5), None), Pairwise(colours, 2 + torch.rand(classes), None)]


def both(
    unary: Tensor,
    pairwise: Sequence[Pairwise],
    iterations: int = 6,
    tolerance: float | None = None,
) -> tuple[Tensor, Tensor]:
    expected = plain(unary.flatten(1).T, Messages(pairwise), iterations, tolerance).T.reshape(unary.shape)
    return cpu.MeanField(unary, pairwise, threads=2).distribution(iterations, tolerance), expected


@pytest.mark.parametrize("classes", [1, 2, 16, 17, 21, 32, 50])
def test_any_number_of_classes(classes: int) -> None:
    ours, expected = both(energies(classes), kernels(classes))
    assert (ours - expected).abs().max() < 2e-5


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_every_normalisation(normalization: Normalization) -> None:
    less = 200 if normalization == "none" else 1
    pairwise = [Pairwise(p.features, p.weight / less, None, normalization) for p in kernels(5)]
    ours, expected = both(energies(5), pairwise)
    assert (ours - expected).abs().max() < 2e-5


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_every_kernel_has_a_normalisation_of_its_own(normalization: Normalization) -> None:
    places, colours = kernels(5)
    less = 200 if normalization == "none" else 1
    for other in (replace(places, normalization="before"), replace(places, normalization="after"), places):
        ours, expected = both(
            energies(5), [other, Pairwise(colours.features, colours.weight / less, None, normalization)]
        )
        assert (ours - expected).abs().max() < 2e-5


def test_steps_from_any_distribution_are_those_of_one_run() -> None:
    field = cpu.MeanField(energies(20), kernels(20), threads=2)
    q = field.distribution(0, None)
    for _ in range(4):
        q = field.distribution(1, None, start=q)
    assert (q - field.distribution(4, None)).abs().max() < 1e-5


def test_compatibilities() -> None:
    pairwise = [Pairwise(p.features, p.weight, torch.rand(19, 19)) for p in kernels(19)]
    ours, expected = both(energies(19), pairwise)
    assert (ours - expected).abs().max() < 2e-5


@pytest.mark.parametrize("axes", [1, 3, 6, 15])
def test_any_number_of_features(axes: int) -> None:
    pairwise = [Pairwise(torch.rand(SIZE[0] * SIZE[1], axes) * 3, torch.tensor(2.0), None)]
    ours, expected = both(energies(4), pairwise)
    assert (ours - expected).abs().max() < 2e-5


def test_iterations_none_one_and_until_it_settles() -> None:
    for iterations in (0, 1):
        ours, expected = both(energies(20), kernels(20), iterations=iterations)
        assert (ours - expected).abs().max() < 1e-5
    unary, pairwise = energies(20), kernels(20)
    ours, expected = both(unary, pairwise, iterations=50, tolerance=1e-3)
    assert (ours - expected).abs().max() < 1e-4
    full = both(unary, pairwise, iterations=50)[0]
    assert 1e-5 < (ours - full).abs().max() < 1e-2


def test_classes_that_become_negligible_may_be_dropped() -> None:
    unary = energies(40)
    unary[2:-1] += 14  # all but three classes
    ours, expected = both(unary, kernels(40), iterations=10)
    assert (ours - expected).abs().max() < 2e-5
    assert ours.min() > 0
    assert torch.allclose(ours.log(), expected.log(), atol=1e-2)


def test_the_result_does_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.crf.cpu.strips._STRIP", 7)  # so that there are several strips
    monkeypatch.setattr("atrous.crf.cpu.strips._STRIP_HEIGHT", 1)
    unary, pairwise = energies(21), kernels(21)
    fields = [cpu.MeanField(unary, pairwise, threads) for threads in (1, 2, 3)]
    results = [field.distribution(5, None) for field in fields]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    expected = plain(unary.flatten(1).T, Messages(pairwise), 5, None).T.reshape(unary.shape)
    assert (results[0] - expected).abs().max() < 2e-5


def test_energies_far_apart_and_large_do_no_harm() -> None:
    unary = energies(3)
    unary[:, 3] = torch.tensor([1e4, -1e4, 0.0])[:, None]
    unary[:, 7] += 500
    ours, expected = both(unary, kernels(3))
    assert (ours - expected).abs().max() < 1e-4


def test_corners_and_weights_are_the_plain_lattices() -> None:
    features = Bilateral(9, 20, 1).features(image(), SIZE, "yx")[:704]  # a multiple of sixteen
    lattice, strides = Lattice(features), key_strides(features)
    weights, vertices = np.empty(704 * 6, np.float32), np.empty(704 * 6, np.int32)
    flat, factors = features.T.contiguous().reshape(-1).numpy(), np.array(scale_factors(5), np.float32)
    keys = find_corners(flat, 5, 0, 704 // LANES, factors, np.array(strides), 0, 6, 0, weights, vertices)
    ours = np.stack([a.reshape(-1, 6, LANES).swapaxes(1, 2).reshape(-1, 6) for a in (weights, keys[vertices])])
    assert np.array_equal(ours[0], lattice.weights.numpy())
    assert len(keys) == lattice.neighbours.shape[2]
    # The plain lattice numbers its corners in the order of their keys.
    assert np.array_equal(np.searchsorted(np.sort(keys), keys[vertices]).reshape(-1, 6, LANES), _blocks(lattice))


def _blocks(lattice: Lattice) -> np.ndarray:
    return lattice.vertices.numpy().reshape(-1, LANES, 6).swapaxes(1, 2)


@njit
def _exponentials(x, out):
    for i in range(0, x.size, LANES):
        store(address(out), i, exponential(load(address(x), i)))
    return largest(load(address(x), 0)), total(load(address(x), 0))


@njit
def _transposed(source, rows, target):
    transpose(address(source), source.shape[1], address(rows), address(target), target.shape[1])


def test_vectors_compute_what_they_say() -> None:
    x = np.linspace(-100, 88, 1600).astype(np.float32)
    out = np.empty_like(x)
    highest, sums = _exponentials(x, out)
    assert highest == x[:LANES].max()
    assert sums == pytest.approx(x[:LANES].sum(), rel=1e-6)
    assert (out[x < -88] == 0).all()
    normal = x > -87
    assert np.allclose(out[normal], np.exp(x[normal].astype(np.float64)), rtol=2e-7, atol=0)
    source, target = np.random.rand(20, 18).astype(np.float32), np.zeros((LANES, 17), np.float32)
    rows = np.random.permutation(20)[:LANES]
    _transposed(source, rows, target)
    assert np.array_equal(target[:, :LANES], source[rows, :LANES].T)
    assert (target[:, LANES:] == 0).all()
