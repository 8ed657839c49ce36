"""CVAT's "Segmentation mask 1.1", in VOC's folders: ``labelmap.txt`` has the colours of its classes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.sources.annotated import BACKGROUND, UNNAMED, VOID, ImageFinder, drawn_names
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import lists_in, read_lines, usual_split
from atrous.errors import DatasetError, InputError
from atrous.labels import Color, LabelSet

DEFAULT_LIST = "default"


class CvatMasks(PublishedSource):
    """``SegmentationClass/NAME.png``, ``JPEGImages/NAME.jpg``, ``ImageSets/Segmentation/default.txt`` and
    ``labelmap.txt``; images may also lie elsewhere below the folder.
    """

    kind = "cvat"

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "SegmentationClass").is_dir():
            raise DatasetError(
                f'{root} has labelmap.txt but no SegmentationClass; export it from CVAT as "Segmentation mask 1.1"'
            )
        if not lists_in(self._lists):
            raise DatasetError(f"{root} has no list in ImageSets/Segmentation, which CVAT writes as default.txt")

    @property
    def _lists(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        colors = read_label_map(self.root / "labelmap.txt")
        void = tuple(color for name, color in colors.items() if name.lower() in VOID)
        kept = {name: color for name, color in colors.items() if name.lower() not in VOID}
        names = sorted(kept, key=lambda name: name.lower() not in BACKGROUND)  # the background first, else as listed
        try:
            label_set = LabelSet(tuple(names), tuple(kept[name] for name in names))
        except InputError as error:
            raise DatasetError(f"{self.root / 'labelmap.txt'}: {error}") from error
        return MaskForm(label_set, "rgb", ignore=void, orientation="upright")

    @cached_property
    def _files(self) -> dict[str, Path]:
        lists = {usual_split(file.stem): file for file in lists_in(self._lists)}
        return {UNNAMED: lists[DEFAULT_LIST]} if list(lists) == [DEFAULT_LIST] else lists

    def splits(self) -> list[str]:
        return ["train", "val"] if UNNAMED in self._files else sorted(self._files)

    def list_file(self, split: str) -> Path:
        return self._files.get(UNNAMED) or self._files.get(split, self._lists / f"{split}.txt")

    def listed(self, split: str) -> list[Listed]:
        names = read_lines(self.list_file(split), self.root)
        if UNNAMED in self._files and split != "all":
            names = drawn_names(self.spec, names, split)
        finder = ImageFinder(self.root / "JPEGImages", self.root / "images", self.root)
        images = {image.stem: image for image in finder.every() if "Segmentation" not in image.parent.name}
        there = {name: images.get(Path(name).name) for name in names}
        missing = self.root / "JPEGImages"
        masks = self.root / "SegmentationClass"
        return [Listed(name, there[name] or missing / f"{name}.jpg", MaskFile(masks / f"{name}.png")) for name in names]


def read_label_map(file: Path) -> dict[str, Color]:
    """The colour of each class: lines ``name:red,green,blue:parts:actions``.

    Raises:
        DatasetError: a line has another form.
    """
    colors: dict[str, Color] = {}
    for line in read_lines(file, file.parent):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(part) for part in rest.split(":")[0].split(","))
        except ValueError as error:
            raise DatasetError(
                f"{file}: the line {line!r}, expected name:red,green,blue:: as CVAT writes it"
            ) from error
        colors[name] = red, green, blue
    return colors
