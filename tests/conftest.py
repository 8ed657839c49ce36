"""Fixtures that several test files share."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The development folder with real pictures, beside the checkout; without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("needs the development pictures in ../shared (see CONTRIBUTING.md)")
    return SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
