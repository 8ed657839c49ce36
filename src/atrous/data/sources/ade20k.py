"""ADE20K's scene parsing benchmark (Zhou et al., CVPR 2017): 150 classes."""

from __future__ import annotations

from pathlib import Path

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import folders_in, require_split, visible
from atrous.errors import DatasetError
from atrous.label_sets import ADE20K

FOLDERS = {"train": "training", "val": "validation"}
"""The folder of each split."""


class Ade20k(PublishedSource):
    """``ADEChallengeData2016``: ``images/training/NAME.jpg`` and ``annotations/training/NAME.png``. Value 0, everything
    else, is ignored. The splits are called ``train`` and ``val``.
    """

    kind = "ade20k"
    mask_form = MaskForm(ADE20K, values=tuple(range(1, 151)), ignore=(0,))

    def __init__(self, root: Path) -> None:
        places = (root, root / "ADEChallengeData2016")
        base = next((p for p in places if (p / "images").is_dir() and (p / "annotations").is_dir()), None)
        if base is None:
            raise DatasetError(
                f"{root} is not an ADE20K dataset (ADEChallengeData2016): expected images/training, images/validation, "
                "annotations/training and annotations/validation in it"
            )
        self.root = base

    def splits(self) -> list[str]:
        splits = {folder: split for split, folder in FOLDERS.items()}
        return [splits.get(folder, folder) for folder in folders_in(self.root / "annotations")]

    def list_file(self, split: str) -> Path:
        return self.root / "images" / FOLDERS.get(split, split)

    def listed(self, split: str) -> list[Listed]:
        images = self.list_file(split)
        require_split(images, self.splits())
        masks = self.root / "annotations" / images.name
        return [
            Listed(image.stem, image, MaskFile(masks / f"{image.stem}.png")) for image in visible(images.glob("*.jpg"))
        ]

    def unused_masks(self) -> list[Path]:
        images = self.root / "images"
        masks = visible((self.root / "annotations").glob("*/*.png"))
        return [mask for mask in masks if not (images / mask.parent.name / f"{mask.stem}.jpg").is_file()]
