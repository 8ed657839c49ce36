"""COCO panoptic segmentation (Kirillov et al., CVPR 2019): PNGs of segment numbers, and a JSON of their categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.find import as_written, is_file
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import DecodedMask, MaskFile, MaskHeader, MaskRef
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import did_you_mean, visible
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, Color, LabelSet

PREFIX = "panoptic_"
FORM = (
    "COCO's panoptic JSON: categories (id, name), images (id, file_name) and annotations (image_id, file_name, "
    "segments_info)"
)


class Segments(NamedTuple):
    """An image: its file, the file of its segments, and the label of each segment's number."""

    image: str
    png: str
    labels: Mapping[int, int]


class Panoptic(NamedTuple):
    """What a file contains: names and colours of the categories, and the images by name."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    images: Mapping[str, Segments]


def read_panoptic(file: Path) -> Panoptic:
    """Read a file of annotations.

    Raises:
        InputError: not in COCO's panoptic form.
    """
    with form_of(FORM):
        data = read_json(file)
        categories = sorted(data["categories"], key=lambda category: category["id"])
        label = {category["id"]: place for place, category in enumerate(categories)}
        if not 2 <= len(categories) <= IGNORE:
            raise InputError(f"{len(categories)} categories, where masks have 2 to {IGNORE}")
        files = {image["id"]: str(image["file_name"]) for image in data["images"]}
        images = {}
        for annotation in data["annotations"]:
            image = files[annotation["image_id"]]
            images[Path(image).with_suffix("").as_posix()] = Segments(
                image, annotation["file_name"], _labels(annotation, label)
            )
        colors = [category["color"] for category in categories if "color" in category]
        colored = len(colors) == len(categories)
        return Panoptic(
            tuple(category["name"] for category in categories),
            tuple((int(r), int(g), int(b)) for r, g, b in colors) if colored else (),
            images,
        )


def _labels(annotation: Mapping[str, Any], label: Mapping[Any, int]) -> dict[int, int]:
    """The label of each segment; crowds, and the number 0, are ignored."""
    segments = {
        int(segment["id"]): IGNORE if segment.get("iscrowd") else label[segment["category_id"]]
        for segment in annotation["segments_info"]
    }
    return {0: IGNORE} | segments


@dataclass(frozen=True)
class PanopticMask(MaskRef):
    """A PNG whose colours are segment numbers, red + 256 green + 65536 blue.

    Args:
        path: the PNG.
        labels: the label of each number.
    """

    labels: Mapping[int, int] = field(repr=False, compare=False)
    expected: ClassVar[str] = "a PNG of segment numbers"

    def header(self) -> MaskHeader:
        return MaskHeader(MaskFile(self.path).header().size)

    def decode(self) -> DecodedMask:
        decoded = MaskFile(self.path).decode()
        if len(decoded.image.getbands()) < 3:
            raise InputError(f"an image of mode {decoded.image.mode}, expected colours, which are segment numbers")
        numbers = decoded.colors().astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
        found, places = np.unique(numbers, return_inverse=True)
        if unknown := [int(number) for number in found if int(number) not in self.labels]:
            raise InputError(f"it has segment {unknown[0]}, which segments_info in the JSON does not have")
        table = np.array([self.labels[int(number)] for number in found], np.uint8)
        return DecodedMask(str(self), Image.fromarray(table[places].reshape(numbers.shape)), decoded.lossy)


class CocoPanoptic(PublishedSource):
    """``annotations/panoptic_train2017.json``, ``annotations/panoptic_train2017/NAME.png``, and the images in
    ``train2017`` or ``images/train2017``. Each category is a class; there is no background.
    """

    kind = "panoptic"

    def __init__(self, root: Path) -> None:
        self.root = root
        files = visible((root / "annotations").glob(f"{PREFIX}*.json"))
        self._files = {file.stem.removeprefix(PREFIX): file for file in files}
        if not files:
            raise DatasetError(
                f"{root} is not a COCO panoptic dataset: expected annotations/panoptic_train2017.json (or of another "
                "split) and annotations/panoptic_train2017/*.png in it (panoptic_annotations_trainval2017.zip of "
                "cocodataset.org), and the images in train2017 or images/train2017"
            )

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        file = min(self._files.values(), key=lambda file: file.stat().st_size)
        read = parsed(file, read_panoptic)
        try:
            return MaskForm(LabelSet(read.names, read.colors))
        except InputError as error:
            raise DatasetError(f"{file}: {error}") from error

    def splits(self) -> list[str]:
        short = {name for name in ("train", "val") if name not in self._files and self._whole(name) in self._files}
        return sorted({*self._files, *short} - {self._whole(name) for name in short})

    def list_file(self, split: str) -> Path:
        return self.root / "annotations" / f"{PREFIX}{self._whole(split)}.json"

    def listed(self, split: str) -> list[Listed]:
        whole = self._whole(split)
        if whole not in self._files:
            there = self.splits()
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, there)}; available splits: {', '.join(there)}"
            )
        read = parsed(self._files[whole], read_panoptic)
        if read.names != self.mask_form.label_set.names:
            raise DatasetError(f"{self._files[whole]} has other categories than the other files beside it")
        places = [self.root / whole, self.root / "images" / whole, self.root / "images"]
        images = next((place for place in places if place.is_dir()), places[0])
        masks = self.root / "annotations" / f"{PREFIX}{whole}"
        return [
            Listed(name, _image(images, segments), PanopticMask(masks / segments.png, segments.labels))
            for name, segments in sorted(read.images.items())
        ]

    def _whole(self, split: str) -> str:
        return next((name for name in (split, f"{split}2017") if name in self._files), split)


def _image(folder: Path, segments: Segments) -> Path:
    """The image; some files name it with the ending of its PNG."""
    image = as_written(folder / segments.image)
    other = image.with_suffix(".jpg")
    return other if not is_file(image) and is_file(other) else image
