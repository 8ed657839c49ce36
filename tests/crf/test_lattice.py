"""The permutohedral lattice beside the exact Gaussian filter, and what it promises of itself."""

import pytest
import torch
from torch import Tensor

from atrous.crf.lattice import Lattice, embed, key_strides


def exact(features: Tensor, values: Tensor) -> Tensor:
    """Sums over all points, weighted by a Gaussian of standard deviation 1."""
    return torch.exp(-torch.cdist(features, features).square() / 2) @ values


def image_features(height: int, width: int, channels: int) -> Tensor:
    """Positions over 4 and smooth colours: what images are like."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    colours = [torch.sin(x / (3 + i)) + torch.cos(y / (4 + i)) for i in range(channels)]
    return torch.stack([x / 4, y / 4, *colours], dim=2).reshape(-1, 2 + channels).float()


@pytest.mark.parametrize("channels", [0, 1, 3, 5])
def test_normalised_it_is_nearly_the_exact_gaussian(channels: int) -> None:
    features = image_features(12, 9, channels)
    values, ones = torch.rand(108, 4), torch.ones(108, 1)
    lattice = Lattice(features)
    ours = lattice.filter(values) / lattice.filter(ones)
    expected = exact(features, values) / exact(features, ones)
    assert ((ours - expected).abs() / expected).mean() < 0.06


def test_barycentric_weights_give_each_point_back_from_its_corners() -> None:
    features = image_features(12, 9, 3) + torch.rand(108, 5)
    keys, weights = embed(features)
    assert weights.min() >= -1e-6
    assert torch.allclose(weights.sum(1), torch.ones(108))
    last = -keys.sum(2, keepdim=True)  # all coordinates of a corner add up to 0
    corners = torch.cat([keys, last], dim=2).float()
    assert ((corners.remainder(6) - corners.remainder(6)[..., :1]) == 0).all()  # and have one remainder, 0 to 5
    assert corners[:, :, 0].remainder(6).sort(1).values.equal(torch.arange(6.0).expand(108, 6))
    placed = (weights[:, :, None] * corners).sum(1)
    assert (placed.sum(1).abs() < 1e-4).all()
    apart = placed - placed[:1]
    # The embedding keeps distances, up to its one factor √(2/3)·(d+1).
    assert torch.allclose(apart.norm(dim=1), 6 * (2 / 3) ** 0.5 * (features - features[0]).norm(dim=1), atol=1e-3)


def test_its_gradient_is_the_filter_in_the_opposite_order() -> None:
    lattice = Lattice(image_features(5, 6, 3))
    values = torch.rand(30, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lattice.filter, values)
    assert torch.autograd.gradgradcheck(lattice.filter, values)


def test_many_dimensions_do_not_mix_up_corners() -> None:
    torch.manual_seed(0)
    features = 20 * torch.randn(300, 16)
    keys, _ = embed(features)
    packed = (keys * torch.tensor(key_strides(features))).sum(2)
    assert len(packed.unique()) == len(keys.reshape(-1, 16).unique(dim=0))


@pytest.mark.parametrize("bad", [1e9, float("nan"), float("inf")])
def test_points_too_far_out_are_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="too large for the lattice"):
        Lattice(torch.tensor([[0.0, 0.0], [1.0, bad]]))
