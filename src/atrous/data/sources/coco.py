"""COCO (Lin et al., ECCV 2014), and any dataset in its format."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from atrous.data.files.coco_json import CocoMask, read_annotations
from atrous.data.files.coco_shapes import Annotations
from atrous.data.files.find import as_written
from atrous.data.files.masks import MaskForm
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import did_you_mean
from atrous.errors import DatasetError
from atrous.label_sets import VOC
from atrous.labels import LabelSet

KINDS = ("coco", "coco-voc")
SUBSETS = {"train10k": ("train2014", 10_000), "val1500": ("val2014", 1_500)}
"""The split and the number of images of the subsets of Attention to Scale, which the paper drew at random."""
SMALLEST_AREA = 1000
"""Pixels that objects of VOC's classes must cover for an image to be trained on (DeepLabv3, section 4.3)."""
NAMES_OF_VOC_CLASSES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""The classes of VOC that have another name in COCO."""


class Coco(PublishedSource):
    """COCO, or a dataset in its format: ``annotations/instances_train2017.json`` and ``train2017/NAME.jpg``, also in
    ``images``. ``train`` and ``val`` stand for those of the newest year available.

    Args:
        root: the folder that contains ``annotations``.
        kind: ``coco``: each category is a class, after a background; ``coco-voc``: VOC's 21 classes, and in splits
            named ``train…`` only images with more than 1000 annotated pixels of them.
    """

    def __init__(self, root: Path, kind: str = "coco") -> None:
        self.kind, self.root = kind, root
        files = sorted((root / "annotations").glob("instances_*.json"))
        self._files = {file.stem.removeprefix("instances_"): file for file in files}
        if not files:
            raise DatasetError(
                f"{root} is not a COCO dataset: expected annotations/instances_train2017.json (or of another split) in "
                "it, and the images in train2017 or images/train2017"
            )

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        smallest = min(self._files.values(), key=lambda file: file.stat().st_size)
        annotations = read_annotations(smallest)
        self._classes(annotations, smallest)
        return MaskForm(self._label_set(annotations))

    def splits(self) -> list[str]:
        short = {name for name in ("train", "val") if name not in self._files and self._whole(name) in self._files}
        drawn = {name for name, (whole, _) in SUBSETS.items() if whole in self._files}
        return sorted({*self._files, *short, *drawn} - {self._whole(name) for name in short})

    def list_file(self, split: str) -> Path:
        whole = self._whole(split)
        return self._files.get(whole, self.root / "annotations" / f"instances_{whole}.json")

    def listed(self, split: str) -> list[Listed]:
        file, whole = self._file(split), self._whole(split)
        annotations = read_annotations(file)
        classes = self._classes(annotations, file)
        if self._label_set(annotations) != self.mask_form.label_set:
            raise DatasetError(f"{file} has other categories than the other files beside it; a dataset has one list")
        names = sorted(annotations.images)
        self._refuse_background(annotations, file)
        if self.kind == "coco-voc" and whole.startswith("train"):
            areas = annotations.areas(classes)
            names = [name for name in names if areas[annotations.images[name].row] > SMALLEST_AREA]
        if split in SUBSETS:
            names = sorted(sorted(names, key=_hash)[: SUBSETS[split][1]])
        places = (self.root / whole, self.root / "images" / whole, self.root / "images")
        images = next((place for place in places if place.is_dir()), places[0])
        return [
            Listed(name, as_written(images / annotations.images[name].file), CocoMask(file, name, classes))
            for name in names
        ]

    def _refuse_background(self, annotations: Annotations, file: Path) -> None:
        """A category named background may exist, but not have objects: what it means differs from ours."""
        background = {place for place, name in enumerate(annotations.categories, 1) if _is_background(name)}
        drawn = int(np.isin(annotations.parts["category"], list(background)).sum())
        if background and drawn:
            raise DatasetError(
                f"{file}: {drawn} annotations are of a category named background, which is also what lies outside all "
                "annotations; rename the category, or take them out"
            )

    def _file(self, split: str) -> Path:
        file = self.list_file(split)
        if self._whole(split) not in self._files:
            available = self.splits()
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, available)} (looked for {file}); "
                f"available splits: {', '.join(available)}"
            )
        return file

    def _whole(self, split: str) -> str:
        """The split that a name stands for, or that a subset is drawn from."""
        whole = SUBSETS[split][0] if split in SUBSETS else split
        return next((name for name in (whole, f"{whole}2017", f"{whole}2014") if name in self._files), whole)

    def _label_set(self, annotations: Annotations) -> LabelSet:
        return (
            VOC
            if self.kind == "coco-voc"
            else LabelSet((VOC.names[0], *(name for name in annotations.categories if not _is_background(name))))
        )

    def _classes(self, annotations: Annotations, file: Path) -> tuple[int, ...]:
        """The class of each category, from category 0 on; 0 for those that are not drawn."""
        categories = annotations.categories
        if self.kind == "coco":
            drawn = itertools.count(1)
            return (0, *(0 if _is_background(name) else next(drawn) for name in categories))
        return (0, *_voc_classes(categories, file))


def _is_background(name: str) -> bool:
    return name.strip().lower() == VOC.names[0]


def _voc_classes(categories: Sequence[str], file: Path) -> list[int]:
    classes = {NAMES_OF_VOC_CLASSES.get(name, name): label for label, name in enumerate(VOC.names) if label}
    if missing := [name for name in classes if name not in categories]:
        raise DatasetError(
            f"{file} does not have all classes of VOC: no category '{missing[0]}'; with coco: instead of coco-voc:, "
            "its own categories are the classes"
        )
    return [classes.get(category, 0) for category in categories]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
