"""Published sets of CRF parameters. It is not always known which set produced which of a paper's numbers."""

from __future__ import annotations

from atrous.crf.mean_field import Normalization
from atrous.crf.pairwise import Bilateral, Gaussian, Kernel


def _parameters(
    appearance: tuple[float, float, float],
    smoothness: tuple[float, float] = (3, 3),
    *,
    iterations: int = 10,
    normalization: Normalization = "after",
) -> tuple[list[Kernel], int, Normalization]:
    """A set from weight, position and colour width of the bilateral kernel, and weight and width of the Gaussian one.

    DeepLab's release divides each message by its kernel's sum (``"after"``); pydensecrf normalises symmetrically.
    """
    weight, sxy, srgb = appearance
    return [Gaussian(smoothness[1], smoothness[0]), Bilateral(sxy, srgb, weight)], iterations, normalization


PUBLISHED = {
    "deeplab_largefov": _parameters((4, 121, 5)),  # VGG-16, as released
    "deeplab_msc_largefov": _parameters((5, 140, 5)),  # multi-scale features, as released
    "deeplab_v2_resnet101": _parameters((4, 67, 3), (3, 1), normalization="symmetric"),  # as the reproduction has it
    "deeplab_run_script": _parameters((4, 49, 5)),  # run_densecrf.sh
    "deeplab_grid_search_script": _parameters((4, 51, 5)),  # run_densecrf_grid_search.sh
    "deeplab_boundary_script": _parameters((5, 50, 10)),  # EvalCRF_Boundary.m
    "deeplab_program_defaults": _parameters((10, 60, 20)),
    "pydensecrf_readme": _parameters((10, 80, 13), iterations=5, normalization="symmetric"),
}
"""Kernels, iterations and normalisation by name."""
