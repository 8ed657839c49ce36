"""On a GPU, everything gives what it gives on the CPU, and keeps the host waiting no more than it must.

Without a GPU these tests are skipped; ``ATROUS_TEST_DEVICE=cpu`` tries what they do themselves on any machine.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

Unwaiting = Callable[[], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """Where the tests compute."""
    name = os.environ.get("ATROUS_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return torch.device(name)


@pytest.fixture
def exact() -> Iterator[None]:
    """Float32 convolutions in float32: by default cuDNN's round to TF32's ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def unwaiting(device: torch.device) -> Unwaiting:
    """In its context, what keeps the host waiting for the GPU is an error, as far as torch notices it."""

    @contextmanager
    def context() -> Iterator[None]:
        if device.type != "cuda":
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says of itself that it does not notice everything
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return context
