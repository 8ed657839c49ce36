"""Where features sit, and sampling them there."""

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atrous.grid import PIXELS, Grid, resample
from atrous.models.surgery.trace import GeometryError, evaluating, trace


def fcn_backbone() -> Grid:
    """FCN-VGG16's backbone by its windows: pad 100, five 2×2 pools, a 7×7 fc6 (the released net file)."""
    grid = PIXELS.window(3, 1, padding=100)
    for _ in range(5):
        grid = grid.window(2, 2)
    return grid.window(7)


def test_fcn_final_crops_fall_out_of_the_formula() -> None:
    score = fcn_backbone()
    assert score.stride == 32
    assert score.transposed(64, 32) == Grid(1, -19)  # 32s crops 19
    twice = score.transposed(4, 2)
    assert twice.transposed(32, 16) == Grid(1, -27)  # 16s crops 27
    assert twice.transposed(4, 2).transposed(16, 8) == Grid(1, -31)  # 8s crops 31


def test_fcn_skip_crops_fall_out_of_the_formula() -> None:
    def pool(count: int) -> Grid:
        grid = PIXELS.window(3, 1, padding=100)
        for _ in range(count):
            grid = grid.window(2, 2)
        return grid

    twice = fcn_backbone().transposed(4, 2)
    assert pool(4).cropped(5) == twice
    assert pool(3).cropped(9) == twice.transposed(4, 2)


def test_alexnet_crop_falls_out_of_the_formula() -> None:
    grid = PIXELS.window(11, 4, padding=100).window(3, 2).window(5, padding=2).window(3, 2)
    grid = grid.window(3, padding=1).window(3, padding=1).window(3, padding=1).window(3, 2).window(6)
    assert grid.transposed(63, 32) == Grid(1, -18)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_sampling_an_aligned_grid_is_deeplabs_interp(k: int) -> None:
    x = torch.randn(2, 3, k + 1, k + 2)
    ours = resample(x, Grid(8, 0), PIXELS, (8 * k + 1, 8 * (k + 1) + 1))
    theirs = F.interpolate(x, scale_factor=None, size=ours.shape[-2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_sampling_a_patch_grid_is_half_pixel_resizing() -> None:
    x = torch.randn(2, 3, 5, 7)
    ours = resample(x, Grid(4, 1.5), PIXELS, (20, 28))
    torch.testing.assert_close(ours, F.interpolate(x, scale_factor=4, mode="bilinear"), rtol=0, atol=2e-6)


def test_sampling_keeps_the_memory_format_and_does_not_depend_on_it() -> None:
    x = torch.randn(2, 5, 6, 7)
    plain = resample(x, Grid(16, 0), Grid(4, 0), (22, 25))
    last = resample(x.contiguous(memory_format=torch.channels_last), Grid(16, 0), Grid(4, 0), (22, 25))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, last, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_sampling_can_be_compiled_in_inference_mode() -> None:
    def sample(x: torch.Tensor) -> torch.Tensor:
        return resample(x, Grid(4, 1.5), PIXELS, (18, 26))

    x = torch.randn(1, 2, 5, 7)
    torch.testing.assert_close(torch.compile(sample, backend="eager", fullgraph=True)(x), sample(x))


def test_sampling_is_differentiable() -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: resample(t, Grid(8, 3.5), PIXELS, (9, 21)), x)


@given(
    stride=st.sampled_from([1, 2, 4, 8, 16, 32]),
    offset=st.integers(-40, 40).map(lambda v: v / 2),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
@settings(max_examples=60, deadline=None)
def test_a_ramp_is_sampled_exactly_inside_and_held_outside(stride: int, offset: float, size: tuple[int, int]) -> None:
    n = 9
    places = stride * torch.arange(n) + offset
    x = places.expand(1, 1, n, n).contiguous()
    got = resample(x, Grid(stride, offset), PIXELS, size)
    wanted = torch.arange(size[1], dtype=torch.float32).clamp(float(places[0]), float(places[-1]))
    torch.testing.assert_close(got, wanted.expand_as(got), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "offset"),
    [("resnet18", 0), ("mobilenetv2_035", 0), ("tf_efficientnet_lite0", 0), ("vgg11", 15.5), ("convnext_atto", 15.5)],
)
def test_trace_tells_padded_kernels_from_patches(name: str, offset: float) -> None:
    net = timm.create_model(name, features_only=True)
    assert trace(net).outputs[-1] == Grid(32, offset)


def test_same_padding_shifts_at_even_sizes() -> None:
    net = timm.create_model("tf_efficientnet_lite0", features_only=True)
    assert trace(net, size=129).outputs[0] == Grid(2, 0)
    assert trace(net, size=128).outputs[0] == Grid(2, 1)


def test_traced_place_is_where_a_dot_lights_up() -> None:
    """The mean place of the response to a dot is the dot's place: an independent look at stride and offset."""
    net = nn.Sequential(nn.Conv2d(1, 1, 5, 2, 1), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, 2, 1, dilation=2))
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    grid = trace(net, 1).outputs[0]
    image = torch.zeros(1, 1, 129, 129, requires_grad=True)
    response = net(image)[0, 0]
    response[5, 7].backward()
    assert image.grad is not None
    mass = image.grad[0, 0]
    rows = (mass.sum(1) * torch.arange(129)).sum() / mass.sum()
    columns = (mass.sum(0) * torch.arange(129)).sum() / mass.sum()
    assert rows.item() == pytest.approx(grid.stride * 5 + grid.offset)
    assert columns.item() == pytest.approx(grid.stride * 7 + grid.offset)


def test_an_untraceable_network_names_the_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2))
    with pytest.raises(GeometryError, match=r"layer '1' \(Upsample\)"):
        trace(net)
    with pytest.raises(GeometryError, match="does not depend on a place"):
        trace(nn.AdaptiveAvgPool2d(1))


def test_tracing_leaves_no_mark() -> None:
    net = timm.create_model("resnet10t", features_only=True).train()
    net.bn1.eval() if hasattr(net, "bn1") else None
    modes = [m.training for m in net.modules()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    trace(net)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_evaluating_gives_each_module_its_mode_back() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2))
    net[1].eval()
    with evaluating(net):
        assert not net.training
        assert not net[0].training
    assert net.training
    assert net[0].training
    assert not net[1].training
