"""The layout of COCO, and of any dataset in its form."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from atrous.data.files.coco_json import Annotations, read_annotations
from atrous.data.files.masks import MaskForm
from atrous.data.sources.base import Listed, did_you_mean
from atrous.data.sources.published import Published
from atrous.errors import DatasetError

COCO_CLASSES = ("coco", "coco-voc")
SUBSETS = {"train10k": ("train2014", 10_000), "val1500": ("val2014", 1_500)}
"""Attention to Scale's: of which split, how many images, at random (which ones the paper drew, it does not say)."""
LEAST_AREA = 1000
"""Pixels that objects of VOC's classes must cover, for an image to be learned from (DeepLabv3, section 4.3)."""


class Coco(Published):
    """COCO (SPEC §6.6), or a dataset in its form: ``annotations/instances_train2017.json`` and ``train2017/NAME.jpg``,
    also in ``images``. ``train`` and ``val`` are short for the newest of the years that are there.

    Args:
        root: the folder of ``annotations``.
        kind: ``coco``: each category is a class, behind a background; ``coco-voc``: VOC's 21 classes, and in splits
            named ``train…`` only images with more than 1000 annotated pixels of them.
    """

    def __init__(self, root: Path, kind: str = "coco") -> None:
        self.kind, self.root = kind, root
        files = sorted((root / "annotations").glob("instances_*.json"))
        self._files = {file.stem.removeprefix("instances_"): file for file in files}
        if not files:
            raise DatasetError(
                f"{root} is no COCO dataset: expected annotations/instances_train2017.json (or of another split) in "
                "it, and the images in train2017 or images/train2017"
            )

    @cached_property
    def written(self) -> MaskForm:  # type: ignore[override]
        smallest = min(self._files.values(), key=lambda file: file.stat().st_size)
        return MaskForm(self._read(smallest).label_set(self.kind))

    def splits(self) -> list[str]:
        short = {name for name in ("train", "val") if name not in self._files and self._whole(name) in self._files}
        drawn = {name for name, (whole, _) in SUBSETS.items() if whole in self._files}
        return sorted({*self._files, *short, *drawn} - {self._whole(name) for name in short})

    def list_file(self, split: str) -> Path:
        whole = self._whole(split)
        return self._files.get(whole, self.root / "annotations" / f"instances_{whole}.json")

    def listed(self, split: str) -> list[Listed]:
        whole = self._whole(split)
        if whole not in self._files:
            there = self.splits()
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, there)} (looked for "
                f"{self.root / 'annotations' / f'instances_{whole}.json'}); splits there: {', '.join(there)}"
            )
        file = self._files[whole]
        annotations = self._read(file)
        if annotations.label_set(self.kind) != self.written.label_set:
            raise DatasetError(f"{file} has other categories than the other files beside it; one dataset has one list")
        names = sorted(annotations.images)
        if self.kind == "coco-voc" and whole.startswith("train"):
            areas = annotations.areas(self.kind)
            names = [name for name in names if areas[annotations.images[name].row] > LEAST_AREA]
        if split in SUBSETS:
            names = sorted(sorted(names, key=_shuffled)[: SUBSETS[split][1]])
        places = (self.root / whole, self.root / "images" / whole, self.root / "images")
        images = next((place for place in places if place.is_dir()), places[0])
        masks = file / self.kind
        return [Listed(name, images / annotations.images[name].file, masks / f"{name}.png") for name in names]

    def _whole(self, split: str) -> str:
        """The split that a name stands for, or that a subset is drawn from."""
        whole = SUBSETS[split][0] if split in SUBSETS else split
        return next((name for name in (whole, f"{whole}2017", f"{whole}2014") if name in self._files), whole)

    def _read(self, file: Path) -> Annotations:
        annotations = read_annotations(file)
        try:
            annotations.classes(self.kind)
        except ValueError as error:
            raise DatasetError(
                f"{file} does not have all of VOC's classes: {error}; the reader coco takes its own for classes"
            ) from error
        return annotations


def _shuffled(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
