"""The kernels in Triton beside plain torch: on a GPU, or in Triton's interpreter (test_gpu_kernels.py)."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """Where the kernels run; they serve there."""
    pytest.importorskip("triton", reason="Triton comes with torch where it supports GPUs")
    if not (torch.cuda.is_available() or INTERPRETED):
        pytest.skip("needs a GPU, or Triton's interpreter (test_gpu_kernels.py)")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
