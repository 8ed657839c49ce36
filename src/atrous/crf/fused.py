"""The mean field in fused kernels, on whichever device has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atrous.crf.gpu import mean_field as gpu
from atrous.crf.mean_field import Pairwise

if TYPE_CHECKING:
    from atrous.crf.cpu import mean_field as cpu


def fused_mean_field(unary: Tensor, pairwise: Sequence[Pairwise]) -> cpu.MeanField | gpu.MeanField | None:
    """The mean field of one image in fused kernels: in as many threads as torch uses on a CPU, in Triton on a GPU.

    Args:
        unary: energies ``(C, *size)``, without gradients.
        pairwise: the kernels, on the same device.

    Returns:
        None if the kernels do not support this device or these features, or there is nothing pairwise.

    Raises:
        InputError: as for :class:`atrous.crf.lattice.Lattice`.
    """
    if unary.device.type != "cpu":
        return gpu.MeanField(unary, pairwise) if pairwise and gpu.supports(unary.device) else None
    from atrous.crf.cpu import mean_field as cpu  # numba is loaded when it is first needed

    return cpu.MeanField(unary, pairwise, torch.get_num_threads()) if cpu.supports(pairwise) else None
