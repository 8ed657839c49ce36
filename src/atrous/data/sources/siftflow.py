"""SIFT Flow (Liu et al., TPAMI 2011), images and lists as in shelhamer/fcn.berkeleyvision.org."""

from __future__ import annotations

from pathlib import Path

from atrous.data.extras import Extras, FurtherMasks
from atrous.data.files.mask_form import MaskForm
from atrous.data.sources.base import MatlabSource
from atrous.errors import DatasetError
from atrous.label_sets import GEOMETRIC, SIFT_FLOW


class SiftFlow(MatlabSource):
    """SIFT Flow with 33 classes, and auxiliary masks ``geometric`` with 3: ``trainval.txt``, ``Images``,
    ``SemanticLabels`` and ``GeoLabels``, each with one folder in it.
    """

    kind = "siftflow"
    mask_form = MaskForm(SIFT_FLOW, values=tuple(range(1, 34)), ignore=(0,))
    variable = "S"

    def __init__(self, root: Path) -> None:
        self.root = root
        inner = "spatial_envelope_256x256_static_8outdoorcategories"
        self.lists = root
        self.images, self.masks, geometric = (root / name / inner for name in ("Images", "SemanticLabels", "GeoLabels"))
        for folder in (self.images, self.masks, geometric):
            if not folder.is_dir():
                raise DatasetError(
                    f"{root} is not a SIFT Flow dataset: {folder} does not exist; expected Images, SemanticLabels and "
                    f"GeoLabels with {inner} in each, and the lists trainval.txt and test.txt"
                )
        self.require_scipy()
        form = MaskForm(GEOMETRIC, values=(1, 2, 3), ignore=(0,))
        self.extras = Extras(masks={"geometric": FurtherMasks(form, geometric)})
