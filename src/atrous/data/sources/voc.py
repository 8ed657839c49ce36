"""PASCAL VOC 2012 (Everingham et al., IJCV 2010), with the masks of Hariharan et al. (ICCV 2011) as ``trainaug``."""

from __future__ import annotations

from pathlib import Path

from atrous.data.files.find import as_written
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import lists_in, read_lines, visible
from atrous.errors import DatasetError
from atrous.label_sets import VOC


class Voc(PublishedSource):
    """PASCAL VOC 2012 as published; splits with ``aug`` in their name read masks from ``SegmentationClassAug``.

    Args:
        root: the ``VOC2012`` folder, or the one that contains it or ``VOCdevkit/VOC2012``.
    """

    kind = "voc"
    mask_form = MaskForm(VOC, known_colors=True)

    def __init__(self, root: Path) -> None:
        places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
        base = next((place for place in places if (place / "JPEGImages").is_dir()), None)
        if base is None:
            raise DatasetError(
                f"{root} is not a VOC dataset: expected JPEGImages, SegmentationClass and ImageSets/Segmentation in it"
            )
        self.root = base
        if (base / "SegmentationObject").is_dir() and not next(base.glob("SegmentationClass*"), None):
            raise DatasetError(
                f"{base} has no SegmentationClass, and SegmentationObject numbers the objects of each image, not the "
                "classes; export SegmentationClass too"
            )

    def splits(self) -> list[str]:
        return [file.stem for file in lists_in(self._lists)]

    def list_file(self, split: str) -> Path:
        return self._lists / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        masks = "SegmentationClassAug" if "aug" in split else "SegmentationClass"
        pairs = []
        for line in read_lines(self.list_file(split), self.root):
            words = line.split()
            if len(words) == 2:  # DeepLab's lists name image and mask
                image, mask = (self.root / word.lstrip("/") for word in words)
                name = image.stem
            else:
                image, mask = self.root / "JPEGImages" / f"{line}.jpg", self.root / masks / f"{line}.png"
                name = line
            pairs.append(Listed(name, as_written(image), MaskFile(as_written(mask))))
        return pairs

    def unused_masks(self) -> list[Path]:
        images = {file.stem for file in (self.root / "JPEGImages").iterdir()}
        masks = visible(self.root.glob("SegmentationClass*/*.png"))
        return [mask for mask in masks if mask.stem not in images]

    @property
    def _lists(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"
