"""The layouts of PASCAL VOC and CamVid, and what published datasets have in common."""

from __future__ import annotations

from pathlib import Path

from atrous.data.doctor.findings import Finding
from atrous.data.files.masks import MaskForm
from atrous.data.sources.base import Extras, Listed, read_lines
from atrous.errors import DatasetError
from atrous.label_sets import CAMVID, VOC


class Published:
    """What published datasets have in common: nobody needs to say how their masks are written.

    Attributes:
        kind: the name before the colon of its specification.
        written: how its masks are written.
        root: the folder its files lie below.
    """

    kind: str
    written: MaskForm
    root: Path
    labels_file = None
    extras = Extras()

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}"

    def form(self) -> MaskForm:
        return self.written

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        return self.form(), []

    def spare_masks(self) -> list[Path]:
        return []

    def spare_images(self) -> list[Path]:
        return []  # most have images that are in no list


class Voc(Published):
    """PASCAL VOC 2012 as published; ``trainaug`` takes its masks from ``SegmentationClassAug`` (SPEC §6.1)."""

    kind = "voc"
    written = MaskForm(VOC)

    def __init__(self, root: Path) -> None:
        places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
        base = next((place for place in places if (place / "JPEGImages").is_dir()), None)
        if base is None:
            raise DatasetError(
                f"{root} is no VOC dataset: expected JPEGImages, SegmentationClass and ImageSets/Segmentation in it"
            )
        self.root = base

    def splits(self) -> list[str]:
        return sorted(file.stem for file in self._lists.glob("*.txt"))

    def list_file(self, split: str) -> Path:
        return self._lists / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        masks = "SegmentationClassAug" if "aug" in split else "SegmentationClass"
        pairs = []
        for line in read_lines(self.list_file(split), self.root):
            words = line.split()
            if len(words) == 2:  # DeepLab's lists name image and mask
                image, mask = (self.root / word.lstrip("/") for word in words)
                pairs.append(Listed(image.stem, image, mask))
            else:
                pairs.append(Listed(line, self.root / "JPEGImages" / f"{line}.jpg", self.root / masks / f"{line}.png"))
        return pairs

    def spare_masks(self) -> list[Path]:
        images = {file.stem for file in (self.root / "JPEGImages").iterdir()}
        masks = sorted(self.root.glob("SegmentationClass*/*.png"))
        return [mask for mask in masks if mask.stem not in images]

    @property
    def _lists(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"


class CamVid(Published):
    """CamVid in the SegNet split: ``train train.txt trainannot`` and so on, 11 classes, value 11 is void."""

    kind = "camvid"
    written = MaskForm(CAMVID, ignore=(11,))

    def __init__(self, root: Path) -> None:
        self.root = root

    def splits(self) -> list[str]:
        return sorted(file.stem for file in self.root.glob("*.txt") if (self.root / file.stem).is_dir())

    def list_file(self, split: str) -> Path:
        return self.root / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        images = {file.stem: file for file in (self.root / split).glob("*.*")}
        pairs = []
        for line in read_lines(self.list_file(split), self.root):
            stem = Path(line.split()[0]).stem  # published: /SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png
            image = images.get(stem, self.root / split / f"{stem}.png")
            pairs.append(Listed(stem, image, self.root / f"{split}annot" / f"{stem}.png"))
        return pairs

    def spare_masks(self) -> list[Path]:
        spare = []
        for split in self.splits():
            images = {file.stem for file in (self.root / split).iterdir()}
            spare += [mask for mask in sorted((self.root / f"{split}annot").glob("*.png")) if mask.stem not in images]
        return spare
