"""The layouts of Cityscapes and ADE20K, whose splits are folders."""

from __future__ import annotations

from pathlib import Path

from atrous.data.files.masks import MaskForm
from atrous.data.sources.base import Listed, did_you_mean, folders_in
from atrous.data.sources.published import Published
from atrous.errors import DatasetError
from atrous.label_sets import ADE20K, CITYSCAPES, CITYSCAPES_IDS

LAST_ID = 33
"""Of Cityscapes' ids, which begin at 0; -1, the licence plate, is 255 in a mask."""


class Cityscapes(Published):
    """Cityscapes with 19 classes (SPEC §6.7): ``leftImg8bit/train/aachen/NAME_leftImg8bit.png`` and
    ``gtFine/train/aachen/NAME_gtFine_labelIds.png``, or ``_labelTrainIds.png``. ``train_extra`` has its masks in
    ``gtCoarse``.
    """

    kind = "cityscapes"

    def __init__(self, root: Path) -> None:
        self.root, self.images = root, root / "leftImg8bit"
        if not self.images.is_dir() or not (root / "gtFine").is_dir():
            raise DatasetError(f"{root} is no Cityscapes dataset: expected leftImg8bit and gtFine in it")
        if next(root.glob("gtFine/*/*/*_labelIds.png"), None):  # as downloaded
            others = tuple(value for value in range(LAST_ID + 1) if value not in CITYSCAPES_IDS)
            self.ending, self.written = "labelIds", MaskForm(CITYSCAPES, values=CITYSCAPES_IDS, ignore=others)
        else:
            self.ending, self.written = "labelTrainIds", MaskForm(CITYSCAPES)

    def splits(self) -> list[str]:
        return [split for split in folders_in(self.images) if split != "test"]  # which has no labels

    def list_file(self, split: str) -> Path:
        return self.images / split

    def listed(self, split: str) -> list[Listed]:
        if split == "test":
            raise DatasetError(
                f"{self.root}: Cityscapes publishes no labels of its test images; judge on val, or predict them: "
                f'atrous predict "{self.images}/test/*/*.png"'
            )
        _require_split(self.images / split, self.splits())
        masks = "gtCoarse" if split == "train_extra" else "gtFine"
        pairs = []
        for image in sorted((self.images / split).glob("*/*_leftImg8bit.png")):
            name = image.name.removesuffix("_leftImg8bit.png")
            mask = self.root / masks / split / image.parent.name / f"{name}_{masks}_{self.ending}.png"
            pairs.append(Listed(name, image, mask))
        return pairs


class Ade20k(Published):
    """ADE20K's scene parsing with 150 classes, ``ADEChallengeData2016``: ``images/training/NAME.jpg`` and
    ``annotations/training/NAME.png``. Value 0 is everything else, and judged by nobody. ``train`` and ``val`` are short
    for ``training`` and ``validation``.
    """

    kind = "ade20k"
    written = MaskForm(ADE20K, values=tuple(range(1, 151)), ignore=(0,))
    _SHORT = {"train": "training", "val": "validation"}  # noqa: RUF012

    def __init__(self, root: Path) -> None:
        places = (root, root / "ADEChallengeData2016")
        base = next((p for p in places if (p / "images").is_dir() and (p / "annotations").is_dir()), None)
        if base is None:
            raise DatasetError(
                f"{root} is no ADE20K dataset (ADEChallengeData2016): expected images/training, images/validation, "
                "annotations/training and annotations/validation in it"
            )
        self.root = base

    def splits(self) -> list[str]:
        long = {folder: short for short, folder in self._SHORT.items()}
        return [long.get(folder, folder) for folder in folders_in(self.root / "annotations")]

    def list_file(self, split: str) -> Path:
        return self.root / "images" / self._SHORT.get(split, split)

    def listed(self, split: str) -> list[Listed]:
        images = self.list_file(split)
        _require_split(images, self.splits())
        masks = self.root / "annotations" / images.name
        return [Listed(image.stem, image, masks / f"{image.stem}.png") for image in sorted(images.glob("*.jpg"))]

    def spare_masks(self) -> list[Path]:
        images = self.root / "images"
        masks = sorted((self.root / "annotations").glob("*/*.png"))
        return [mask for mask in masks if not (images / mask.parent.name / f"{mask.stem}.jpg").is_file()]


def _require_split(folder: Path, there: list[str]) -> None:
    if not folder.is_dir():
        raise DatasetError(
            f"{folder.parent} has no split '{folder.name}'{did_you_mean(folder.name, there)}; splits there: "
            f"{', '.join(there) or 'none'}"
        )
