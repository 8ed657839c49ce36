"""COCO (Lin et al., ECCV 2014), and any dataset in its format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from atrous.data.files.coco_json import CocoMask, read_annotations
from atrous.data.files.coco_shapes import Annotations
from atrous.data.files.find import as_written
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.shapes import Overlap
from atrous.data.sources.annotated import BACKGROUND, UNNAMED, drawn_names, label_classes
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import did_you_mean, usual_split, visible
from atrous.errors import DatasetError, InputError
from atrous.label_sets import VOC
from atrous.labels import LabelSet

KINDS = ("coco", "coco-voc", "coco-stuff")
ROBOFLOW = "_annotations.coco.json"
"""The file beside the images of a split in Roboflow's export."""
_OTHER_TASKS = ("panoptic_", "captions_", "person_keypoints_", "image_info_", "labels_", "stuff_")
"""Files of COCO that are not about the outlines of objects."""
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
    ``images``; or ``train/_annotations.coco.json`` beside its images, as Roboflow writes it; or one JSON file.
    ``train`` and ``val`` stand for those of the newest year available.

    Args:
        root: the folder, or a JSON file.
        kind: ``coco``: each category is a class, after a background; ``coco-stuff``: the same of ``stuff_*.json``;
            ``coco-voc``: VOC's 21 classes, and in splits named ``train…`` only images with more than 1000 annotated
            pixels of them.
        overlap: ``area`` when left out: the smaller object lies over the larger, by their ``area``.
    """

    def __init__(self, root: Path, kind: str = "coco", overlap: Overlap | None = None) -> None:
        self.kind, self.root, self.overlap = kind, root, overlap or "area"
        self._files = _files(root, "stuff" if kind == "coco-stuff" else "instances")
        if not self._files:
            needed = "stuff_train2017" if kind == "coco-stuff" else "instances_train2017"
            raise DatasetError(
                f"{root} is not a COCO dataset: expected annotations/{needed}.json (or of another split) in it, and "
                "the images in train2017 or images/train2017; or train/_annotations.coco.json beside its images; or "
                "one JSON file in COCO's format"
            )

    @property
    def spec(self) -> str:
        chosen = "" if self.overlap == "area" else f"?overlap={self.overlap}"
        return f"{self.kind}:{self.root}{chosen}"

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        smallest = min(self._files.values(), key=lambda file: file.stat().st_size)
        annotations = read_annotations(smallest)
        self._classes(annotations, smallest)
        return MaskForm(self._label_set(annotations, smallest))

    def splits(self) -> list[str]:
        if UNNAMED in self._files:
            return ["train", "val"]
        short = {name for name in ("train", "val") if name not in self._files and self._whole(name) in self._files}
        drawn = {name for name, (whole, _) in SUBSETS.items() if whole in self._files}
        return sorted({*self._files, *short, *drawn} - {self._whole(name) for name in short})

    def list_file(self, split: str) -> Path:
        if UNNAMED in self._files:
            return self._files[UNNAMED]
        whole = self._whole(split)
        return self._files.get(whole, self.root / "annotations" / f"instances_{whole}.json")

    def listed(self, split: str) -> list[Listed]:
        file, whole = self._file(split), self._whole(split)
        annotations = read_annotations(file)
        classes = self._classes(annotations, file)
        if self._label_set(annotations, file) != self.mask_form.label_set:
            raise DatasetError(f"{file} has other categories than the other files beside it; a dataset has one list")
        names = sorted(annotations.images)
        self._refuse_background(annotations, file)
        if self.kind == "coco-voc" and whole.startswith("train"):
            areas = annotations.areas(classes)
            names = [name for name in names if areas[annotations.images[name].row] > SMALLEST_AREA]
        if split in SUBSETS:
            names = sorted(sorted(names, key=_hash)[: SUBSETS[split][1]])
        if UNNAMED in self._files and split != "all":
            names = drawn_names(self.spec, names, split)
        images = self._images(file, whole, [annotations.images[name].file for name in names[:1]])
        return [
            Listed(
                name,
                as_written(images / annotations.images[name].file),
                CocoMask(file, name, classes, self.overlap),
            )
            for name in names
        ]

    def _images(self, file: Path, split: str, first: Sequence[str]) -> Path:
        """The folder to which the file names of images are relative: the one that has the first of them."""
        root = self.root if self.root.is_dir() else self.root.parent
        if self.root.is_file() and root.name == "annotations":
            root, split = root.parent, file.stem.partition("_")[2]
        short = split.rstrip("0123456789")  # without the year
        places = [
            root / split,
            root / "images" / split,
            root / "images",
            file.parent,
            root,
            file.parent / "images",
            root / "images" / short,
        ]
        there = (place for place in places if any((place / name).is_file() for name in first))
        return next(there, next((place for place in places[:3] if split and place.is_dir()), places[0]))

    def _refuse_background(self, annotations: Annotations, file: Path) -> None:
        """A category named background may exist, but not have objects: what it means differs from ours."""
        background = {
            place for place, name in enumerate(annotations.categories, 1) if name.strip().lower() in BACKGROUND
        }
        drawn = int(np.isin(annotations.parts["category"], list(background)).sum())
        if background and drawn:
            raise DatasetError(
                f"{file}: {drawn} annotations are of a category named background, which is also what lies outside all "
                "annotations; rename the category, or take them out"
            )

    def _file(self, split: str) -> Path:
        file = self.list_file(split)
        if UNNAMED in self._files:
            return file
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

    def _label_set(self, annotations: Annotations, file: Path) -> LabelSet:
        return VOC if self.kind == "coco-voc" else self._table(annotations, file)[0]

    def _classes(self, annotations: Annotations, file: Path) -> tuple[int, ...]:
        """The class of each category, from category 0 on; 0 for those that are not drawn."""
        if self.kind == "coco-voc":
            return (0, *_voc_classes(annotations.categories, file))
        labels = self._table(annotations, file)[1]
        return (0, *(labels[name] for name in annotations.categories))

    def _table(self, annotations: Annotations, file: Path) -> tuple[LabelSet, dict[str, int]]:
        try:
            return label_classes(annotations.categories)
        except InputError as error:
            raise DatasetError(f"{file}: {error}") from error


def _files(root: Path, kind: str) -> dict[str, Path]:
    """The files of annotations of each split, or the only one, of no split."""
    if root.is_file():
        return {UNNAMED: root}
    if files := sorted((root / "annotations").glob(f"{kind}_*.json")) or sorted(root.glob(f"{kind}_*.json")):
        return {file.stem.removeprefix(f"{kind}_"): file for file in files}
    if kind != "instances":
        return {}
    if files := sorted(root.glob(f"*/{ROBOFLOW}")):
        return {usual_split(file.parent.name): file for file in files}
    alone = [file for folder in (root, root / "annotations") for file in visible(folder.glob("*.json"))]
    alone = [file for file in alone if not file.name.startswith(_OTHER_TASKS)]
    return {UNNAMED: alone[0]} if len(alone) == 1 else {}


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
