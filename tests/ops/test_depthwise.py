"""Depthwise convolutions in compiled code: the same as torch's, forward and backward, where torch is slow."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import atrous
from atrous.ops.depthwise import op as depthwise
from atrous.ops.depthwise.op import compiled_depthwise, depthwise_reference

BFLOAT16 = 2**-8
"""The distance of 1 from the next number of bfloat16, as a share."""


def convolved(x, weight, stride, padding, dilation):
    """The convolution with gradients of some sum of it, as torch's layers ask for it."""
    x, weight = (t.detach().clone().requires_grad_() for t in (x, weight))
    with compiled_depthwise(x):
        y = F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype))
    return y.detach(), x.grad, weight.grad


def expected(x, weight, stride, padding, dilation):
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    y = depthwise_reference(x, weight, stride, padding, dilation)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(torch.float32).double())
    return y.detach(), x.grad, weight.grad


@st.composite
def layers(draw):
    kernel = draw(st.tuples(st.sampled_from([1, 2, 3, 5, 7]), st.sampled_from([1, 3, 5])))
    dilation = draw(st.sampled_from([1, 2, 4, 9]))
    padding = tuple(draw(st.integers(0, dilation * (k - 1))) for k in kernel)
    least = [max(1, dilation * (k - 1) + 1 - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    size = [draw(st.integers(n, n + 9)) for n in least]
    return draw(st.integers(1, 3)), draw(st.integers(32, 70)), size, kernel, draw(st.integers(1, 3)), padding, dilation


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(layers(), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
def test_values_and_gradients_are_torchs(layer, dtype, channels_last):
    batch, channels, size, kernel, stride, padding, dilation = layer
    x = torch.randn(batch, channels, *size, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight = torch.randn(channels, 1, *kernel, dtype=dtype)
    found = convolved(x, weight, stride, padding, dilation)
    wanted = expected(x, weight, stride, padding, dilation)
    # Sums of some hundred products; the incoming gradient of the bfloat16 one is rounded, too.
    tolerance = 1e-5 if dtype == torch.float32 else 4 * BFLOAT16
    for ours, true in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        assert float((ours.double() - true).abs().max()) <= tolerance * max(1.0, float(true.abs().max()))


def test_a_map_of_many_rows_is_computed_in_strips():
    x, weight = torch.randn(1, 40, 400, 130), torch.randn(40, 1, 3, 5)
    for ours, true in zip(convolved(x, weight, 1, (9, 18), 9), expected(x, weight, 1, (9, 18), 9), strict=True):
        assert float((ours.double() - true).abs().max()) <= 1e-5 * max(1.0, float(true.abs().max()))


def test_it_serves_what_torch_is_slow_at_and_nothing_else(monkeypatch):
    served = []
    run = depthwise._convolve
    monkeypatch.setattr(depthwise, "_convolve", lambda *args: served.append(args) or run(*args))

    def serves(kernel=3, *, grad=True, channels=64, groups=None, dtype=torch.float32, **settings):
        served.clear()
        x = torch.randn(1, channels, 33, 33, dtype=dtype)
        weight = torch.randn(channels, channels // (groups or channels), kernel, kernel, dtype=dtype)
        with torch.set_grad_enabled(grad), compiled_depthwise(x):
            F.conv2d(x, weight.requires_grad_(grad), None, groups=groups or channels, **settings)
        return bool(served)

    assert serves(5)
    assert serves(dilation=2)
    assert serves(stride=2, dtype=torch.bfloat16)
    assert serves(padding=12, dilation=12, grad=False)
    assert not serves()
    assert not serves(stride=2)
    assert not serves(5, grad=False)
    assert not serves(5, groups=32)
    assert not serves(5, channels=16)
    assert not serves(5, dtype=torch.float64)
    assert not serves(5, padding="same")
    assert not serves(3, padding=3, grad=False)


def test_results_do_not_depend_on_the_threads():
    x, weight = torch.randn(3, 100, 20, 20).bfloat16(), torch.randn(100, 1, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        results = []
        before = torch.get_num_threads()
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                results.append(convolved(x, weight, 1, (8, 8), 4))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_under_autocast_maps_are_bfloat16_and_gradients_of_weights_float32():
    x = torch.randn(1, 32, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        y, _, gradient = convolved(x, torch.randn(32, 1, 5, 5), 1, 2, 1)
    assert (y.dtype, gradient.dtype) == (torch.bfloat16, torch.float32)


def test_numbers_that_are_none_stay_so_in_bfloat16():
    x = torch.zeros(1, 32, 9, 9, dtype=torch.bfloat16)
    x[0, 3, 4, 4], x[0, 5, 4, 4] = float("nan"), float("inf")
    with compiled_depthwise(x):
        y = F.conv2d(x, torch.ones(32, 1, 3, 3, dtype=torch.bfloat16), None, 1, 8, 8, 32)
    assert y[0, 3].isnan().any()
    assert y[0, 5].isinf().any()
    assert y[0, :3].isfinite().all()


def test_a_network_learns_the_same(monkeypatch):
    """A smooth one: where a ReLU is at its edge, the last bit of a sum decides about a whole gradient."""
    model = atrous.create_model("deeplab_aspp", backbone="efficientnet_b0", num_classes=3, output_stride=8).train()
    images = torch.randn(2, 3, 65, 97)
    served = []

    def gradients():
        torch.manual_seed(0)  # dropout
        model.zero_grad()
        model.outputs(images)[0].logits.square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    serve = depthwise._served
    monkeypatch.setattr(depthwise, "_served", lambda *a, **k: served.append(serve(*a, **k)) or served[-1])
    ours = gradients()
    assert sum(y is not None for y in served) > 10
    monkeypatch.setattr(depthwise, "_served", lambda *_, **__: None)
    torchs = gradients()
    difference = sum(float((a - b).square().sum()) for a, b in zip(ours, torchs, strict=True))
    assert difference <= 1e-8 * sum(float(b.square().sum()) for b in torchs)


def test_multiply_adds_are_counted_as_before():
    x, weight = torch.randn(1, 32, 40, 40), torch.randn(32, 1, 3, 3)
    forward = 2 * 32 * 40 * 40 * 9
    with FlopCounterMode(display=False) as counter, compiled_depthwise(x):
        F.conv2d(x, weight, None, 1, 12, 12, 32)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter, compiled_depthwise(x):
        F.conv2d(x, weight.requires_grad_(), None, 1, 12, 12, 32).sum().backward()
    assert counter.get_total_flops() == 2 * forward  # only the weights learn


def test_an_exported_network_holds_torchs_own_layers():
    model = atrous.create_model("deeplabv3", backbone="mobilenetv2_100", num_classes=2, separable=True).eval()
    model.output_stride = 8
    images = torch.randn(1, 3, 65, 65)
    program = torch.export.export(model, (images,))
    assert not any("atrous" in str(node.target) for node in program.graph.nodes if node.op == "call_function")
    # Nothing that exporting has left behind changes what the network does next.
    torch.testing.assert_close(model(images), program.module()(images), rtol=1e-4, atol=1e-4)


def test_its_operators_are_as_torch_expects_them():
    x, weight = torch.randn(2, 40, 9, 11), torch.randn(40, 1, 3, 3)
    torch.library.opcheck(depthwise._convolve, (x, weight, 1, [8, 8], 8))
    gradient = depthwise_reference(x, weight, 1, (8, 8), 8)
    for wanted in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(depthwise._gradients, (gradient, x, weight, 1, [8, 8], 8, wanted))


def layer(**changes):
    settings = {"weight": torch.randn(64, 1, 3, 3), "padding": 8, "dilation": 8, "groups": 64} | changes
    x = settings.pop("x", torch.randn(1, 64, 20, 20))
    with compiled_depthwise(torch.zeros(1)):
        return F.conv2d(x, **settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"x": torch.randn(1, 48, 20, 20)},
        {"x": torch.randn(1, 16, 20, 20), "weight": torch.randn(32, 1, 3, 3), "groups": 32},
        {"padding": (8, -8)},
        {"padding": 0},
        {"stride": 0},
        {"weight": torch.randn(64, 1, 3)},
        {"bias": torch.randn(1)},
        {"x": torch.randn(1, 64, 20, 20).bfloat16()},
        {"weight": torch.randn(64, 1, 3, 3).double()},
    ],
    ids=",".join,  # not the values, which differ between the processes of pytest -n
)
def test_what_torch_refuses_is_refused_by_torch(changes):
    if changes == {"padding": 0}:  # a kernel wider than the image
        changes |= {"x": torch.randn(1, 64, 9, 9)}
    with pytest.raises((RuntimeError, ValueError)) as ours:
        layer(**changes)
    assert "depthwise" not in str(ours.value)


WEIGHT = torch.randn(32, 1, 3, 3)


def compiled(x, weight=WEIGHT):
    with compiled_depthwise(x):
        return F.conv2d(x, weight, None, 1, 8, 8, 32)


def plain(x, weight=WEIGHT):
    return F.conv2d(x, weight, None, 1, 8, 8, 32)


def energy(convolve):
    return lambda x, weight=WEIGHT: convolve(x, weight).pow(3).sum()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own forward-mode rules use it
def test_derivatives_of_every_kind_are_torchs():
    x, weight = torch.randn(1, 32, 12, 12), torch.randn(32, 1, 3, 3)
    torch.testing.assert_close(torch.func.jvp(compiled, (x,), (x,)), torch.func.jvp(plain, (x,), (x,)))
    both = (x, WEIGHT), (x + 1, weight)
    torch.testing.assert_close(torch.func.jvp(compiled, *both), torch.func.jvp(plain, *both))
    for derivative in (
        lambda f: torch.func.grad(f, argnums=(0, 1))(x, weight),
        lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).square().sum())(x),
        lambda f: torch.func.jvp(torch.func.grad(f), (x,), (x,)),
        lambda f: torch.func.vmap(torch.func.grad(f))(torch.stack([x, x + 1])),
    ):
        torch.testing.assert_close(derivative(energy(compiled)), derivative(energy(plain)), rtol=1e-4, atol=1e-3)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(compiled(x).square().sum() / 2, x, create_graph=True)
    (second,) = torch.autograd.grad((gradient * x.detach()).sum(), x)
    torch.testing.assert_close(second, gradient.detach())  # it is linear


def test_batches_of_calls_and_of_gradients_are_torchs():
    x, weights = torch.randn(1, 32, 12, 12), torch.randn(3, 32, 1, 3, 3)
    over_weights = [torch.func.vmap(f, (None, 0))(x, weights) for f in (compiled, plain)]
    torch.testing.assert_close(*over_weights)
    x.requires_grad_()
    gradients = torch.randn(3, *plain(x).shape)
    both = [torch.autograd.grad(f(x), x, gradients, is_grads_batched=True)[0] for f in (compiled, plain)]
    torch.testing.assert_close(*both)


def test_forward_mode_inside_a_network_of_plain_tensors():
    x = torch.randn(1, 32, 12, 12)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, x))).tangent
        assert forward_ad.unpack_dual(compiled(x)).tangent is None
    torch.testing.assert_close(tangent, plain(x))


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_is_kept(channels_last):
    x = torch.randn(1, 64, 20, 20)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    assert layer(x=x).is_contiguous(memory_format=torch.channels_last) == channels_last


def test_checkpointed_layers_learn_under_autocast():
    x, weight = torch.randn(1, 32, 12, 12, requires_grad=True), torch.randn(32, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), compiled_depthwise(x):
        y = checkpoint(lambda x: F.conv2d(x, weight, None, 1, 2, 1, 32), x, use_reentrant=False)
    y.sum().backward()
    assert weight.grad.isfinite().all()
