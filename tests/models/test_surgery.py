"""The output stride of any convolutional network."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from atrous.models.surgery.output_stride import AtrousPool2d, SurgeryError, set_output_stride
from atrous.models.surgery.trace import trace

# Networks that pad (ResNets, Xception, SAME) are compared at 257, those of patches and unpadded pools at 256.
PADDED = [
    "resnet18",
    "resnet50d",
    "resnet101",
    "mobilenetv2_100",
    "tf_efficientnet_lite0",
    "xception41",
    "regnetx_002",
    "darknet53",
    "repvgg_a0",
    "cspresnet50",
]
PATCHES = ["vgg16_bn", "convnext_atto", "densenet121", "dla34"]


def randomized(name: str) -> nn.Module:
    """A network whose every branch speaks: timm starts the last norm of each block at zero, which would hide it."""
    torch.manual_seed(0)
    net = timm.create_model(name, features_only=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def last(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PADDED + PATCHES)
def test_dense_output_read_sparsely_equals_the_native_output(name: str) -> None:
    net = randomized(name)
    x = torch.randn(1, 3, 257 if name in PADDED else 256, 257 if name in PADDED else 256)
    native = last(net, x)
    # A pool that drops an odd last row lets border values differ once it is dense, so only those that fit are asked
    # for 4.
    for stride in (16, 8, 4):
        dense = last(set_output_stride(net, stride), x)
        step = 32 // stride
        read = dense[..., ::step, ::step]
        assert read.shape == native.shape
        # Rounding of some fifty layers in float32, whose order of summation the machine chooses: 1.03e-5 on AVX2.
        assert ((read - native).norm() / native.norm()).item() < 2e-5
        assert trace(net, size=x.shape[-1]).outputs[-1].stride == stride
    assert torch.equal(last(set_output_stride(net, 32), x), native)  # and back up


def test_weights_and_their_names_are_not_touched() -> None:
    net = randomized("resnet50d")
    before = copy.deepcopy(net.state_dict())
    set_output_stride(net, 8)
    after = net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_copy_can_be_changed_on_its_own() -> None:
    net = set_output_stride(randomized("resnet18"), 16)
    x = torch.randn(1, 3, 65, 65)
    before = last(net, x)
    twin = set_output_stride(copy.deepcopy(net), 8)
    assert last(twin, x).shape[-1] == 9
    assert torch.equal(last(net, x), before)


def test_dilated_convolution_equals_the_zero_inserted_kernel() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 4, 1), nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 1, 1, bias=False))
    set_output_stride(net, 4)
    x = torch.randn(1, 1, 20, 20)
    inserted = torch.zeros(1, 1, 5, 5)
    inserted[..., ::2, ::2] = net[2].weight.detach()
    torch.testing.assert_close(net[2](x), torch.nn.functional.conv2d(x, inserted, padding=2))


@pytest.mark.parametrize(
    ("name", "layer"), [("resnetblur50", r"'layer\d\.0\.aa' \(BlurPool2d\)"), ("hrnet_w18_small", "HighResolutionNet")]
)
def test_what_cannot_be_treated_is_named(name: str, layer: str) -> None:
    with pytest.raises(SurgeryError, match=layer):
        set_output_stride(timm.create_model(name, features_only=True), 16)


def test_a_refused_network_is_as_before() -> None:
    net = timm.create_model("resnetblur50", features_only=True).eval()
    x = torch.randn(1, 3, 65, 65)
    before = last(net, x)
    with pytest.raises(SurgeryError):
        set_output_stride(net, 8)
    assert torch.equal(last(net, x), before)


def test_strides_out_of_reach_are_refused() -> None:
    net = timm.create_model("resnet10t", features_only=True, out_indices=(0, 1, 2, 3))
    with pytest.raises(SurgeryError, match="built with output stride 16"):
        set_output_stride(net, 32)
    with pytest.raises(SurgeryError, match="one of 4, 8, 16, 32"):
        set_output_stride(net, 12)


def test_a_layer_used_at_two_strides_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.down(x))

    with pytest.raises(SurgeryError, match=r"'down' .* input strides 1 and 2"):
        set_output_stride(Twice(), 4)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2, 2),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.MaxPool2d(2, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1),
    ],
)
def test_a_pool_without_its_stride_read_sparsely_equals_the_pool(pool: nn.Module) -> None:
    x = torch.randn(2, 3, 17, 16)
    native = pool(x)
    atrous = AtrousPool2d.like(pool)
    atrous.padding = pool.padding
    assert torch.equal(atrous(x), native)
    atrous.stride = 1
    read = atrous(x)[..., ::2, ::2][..., : native.shape[-2], : native.shape[-1]]
    torch.testing.assert_close(read, native)


def test_a_whole_classifier_can_be_treated() -> None:
    net = timm.create_model("resnet18").eval()
    x = torch.randn(1, 3, 65, 65)
    before = net(x)
    assert set_output_stride(net, 8).forward_features(x).shape[-1] == 9
    assert torch.equal(set_output_stride(net, 32)(x), before)
