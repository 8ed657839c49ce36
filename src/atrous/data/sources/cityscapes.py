"""Cityscapes (Cordts et al., CVPR 2016): 19 classes, from label ids or train ids."""

from __future__ import annotations

from pathlib import Path

from atrous.data.files.masks import MaskFile, MaskForm
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import folders_in, require_split, visible
from atrous.errors import DatasetError
from atrous.label_sets import CITYSCAPES

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each of the 19 classes; pixels of all other ids are ignored."""
LAST_LABEL_ID = 33
"""Ids begin at 0; -1, the licence plate, is 255 in a mask."""


class Cityscapes(PublishedSource):
    """Cityscapes with 19 classes: ``leftImg8bit/train/aachen/NAME_leftImg8bit.png`` and
    ``gtFine/train/aachen/NAME_gtFine_labelIds.png``, or ``_labelTrainIds.png``. The masks of ``train_extra`` are in
    ``gtCoarse``.
    """

    kind = "cityscapes"

    def __init__(self, root: Path) -> None:
        self.root, self.images = root, root / "leftImg8bit"
        if not self.images.is_dir() or not (root / "gtFine").is_dir():
            raise DatasetError(f"{root} is not a Cityscapes dataset: expected leftImg8bit and gtFine in it")
        if next(root.glob("gtFine/*/*/*_labelIds.png"), None):  # as downloaded
            others = tuple(value for value in range(LAST_LABEL_ID + 1) if value not in LABEL_IDS)
            self.ending, self.mask_form = "labelIds", MaskForm(CITYSCAPES, values=LABEL_IDS, ignore=others)
        else:
            self.ending, self.mask_form = "labelTrainIds", MaskForm(CITYSCAPES)

    def splits(self) -> list[str]:
        return [split for split in folders_in(self.images) if split != "test"]  # which has no labels

    def list_file(self, split: str) -> Path:
        return self.images / split

    def listed(self, split: str) -> list[Listed]:
        if split == "test":
            raise DatasetError(
                f"{self.root}: Cityscapes publishes no labels of its test images; evaluate on val, or predict them: "
                f'atrous predict "{self.images}/test/*/*.png"'
            )
        require_split(self.images / split, self.splits())
        masks = "gtCoarse" if split == "train_extra" else "gtFine"
        pairs = []
        for image in visible((self.images / split).glob("*/*_leftImg8bit.png")):
            name = image.name.removesuffix("_leftImg8bit.png")
            mask = self.root / masks / split / image.parent.name / f"{name}_{masks}_{self.ending}.png"
            pairs.append(Listed(name, image, MaskFile(mask)))
        return pairs
