"""The kernels in Triton where there is no GPU: in its interpreter, which a process has from its start or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# The interpreter of Triton 3.6 can't run loops whose ends are computed with NumPy 2.4; 3.9's can.
pytest.importorskip("triton", "3.9", reason="needs the interpreter of Triton 3.9, which comes with torch for GPUs")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu_kernels runs on the GPU")
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name("gpu_kernels"))]
    run = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout
