"""The small layers beside torch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrous.models import layers
from atrous.models.layers import WideConv2d, conv_by_columns


@pytest.fixture(autouse=True)
def _in_strips(monkeypatch):
    monkeypatch.setattr(layers, "_COLUMNS", 200)


sides = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides, st.sampled_from([(1, 1), (3, 3), (5, 3)]), sides, st.booleans())
def test_a_convolution_by_columns_is_the_convolution(size, kernel, rates, biased):
    padding = [rate * (k // 2) for rate, k in zip(rates, kernel, strict=True)]
    x, weight = torch.randn(2, 3, *size, dtype=torch.double), torch.randn(4, 3, *kernel, dtype=torch.double)
    bias = torch.randn(4, dtype=torch.double) if biased else None
    ours = conv_by_columns(x, weight, bias, padding, rates)
    assert torch.allclose(ours, F.conv2d(x, weight, bias, 1, padding, rates))
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_on_the_cpu_a_wide_convolution_is_torchs():
    layer, x = WideConv2d(3, 4, 3, padding=12, dilation=12), torch.randn(1, 3, 7, 7)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, 1, 12, 12))
