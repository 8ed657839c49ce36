"""Roboflow's exports: semantic segmentation masks; COCO and YOLO are read by their own sources."""

from __future__ import annotations

import csv
from functools import cached_property
from pathlib import Path

from atrous.data.files.find import SUFFIXES
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.files.shapes import Overlap
from atrous.data.sources.annotated import VOID
from atrous.data.sources.base import DatasetSource, Listed, PublishedSource
from atrous.data.sources.coco import ROBOFLOW, Coco
from atrous.data.sources.labels_toml import read_text
from atrous.data.sources.names import did_you_mean, usual_split, visible
from atrous.data.sources.yolo import Yolo
from atrous.errors import DatasetError, InputError
from atrous.labels import LabelSet

TABLE = "_classes.csv"
ENDING = "_mask.png"


class RoboflowMasks(PublishedSource):
    """Roboflow's "Semantic Segmentation Masks": ``train/NAME.jpg``, ``train/NAME_mask.png``, ``train/_classes.csv``;
    ``valid`` is ``val``.
    """

    kind = "roboflow"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders = {usual_split(file.parent.name): file.parent for file in visible(root.glob(f"*/{TABLE}"))}

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        tables = {folder: read_table(folder / TABLE) for folder in self._folders.values()}
        (first, table), *others = tables.items()
        for folder, other in others:
            if other != table:
                raise DatasetError(f"{folder / TABLE} has other classes than {first / TABLE}; export the version again")
        kept = {value: name for value, name in table.items() if name.lower() not in VOID}
        void = tuple(value for value in table if value not in kept)
        try:
            label_set = LabelSet(tuple(kept.values()))
        except InputError as error:
            raise DatasetError(f"{first / TABLE}: {error}") from error
        return MaskForm(label_set, values=tuple(kept), ignore=void)

    def splits(self) -> list[str]:
        return sorted(self._folders)

    def list_file(self, split: str) -> Path:
        return self._folders.get(split, self.root / split) / TABLE

    def listed(self, split: str) -> list[Listed]:
        if split not in self._folders:
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, self._folders)}; available splits: "
                f"{', '.join(self.splits())}"
            )
        files = [file for file in visible(self._folders[split].iterdir()) if file.suffix.lower() in SUFFIXES]
        images = [file for file in files if not file.name.endswith(ENDING)]
        return [Listed(image.stem, image, MaskFile(image.with_name(f"{image.stem}{ENDING}"))) for image in images]


def read_table(file: Path) -> dict[int, str]:
    """The name of each value: lines ``value, name`` behind a header.

    Raises:
        DatasetError: another form.
    """
    try:
        _, *rows = csv.reader(read_text(file).splitlines(), skipinitialspace=True)
        table = {int(value): name.strip() for value, name in (row for row in rows if row)}
    except (ValueError, csv.Error) as error:
        raise DatasetError(
            f"{file}: {error}; expected a header and lines 'value, name', as Roboflow exports with Semantic "
            "Segmentation Masks"
        ) from error
    if len(set(table.values())) < len(table):
        raise DatasetError(f"{file}: two values have one name; give each class its own")
    return dict(sorted(table.items()))


def open_roboflow(root: Path, overlap: Overlap | None = None) -> DatasetSource:
    """Open an export by what is in it.

    Raises:
        DatasetError: it is none that has masks.
    """
    if next(root.glob(f"*/{TABLE}"), None):
        return RoboflowMasks(root)
    if next(root.glob(f"*/{ROBOFLOW}"), None):
        return Coco(root, overlap=overlap)
    if (root / "data.yaml").is_file():
        return Yolo(root, overlap)
    raise DatasetError(
        f"{root} is not an export of Roboflow: expected train/{TABLE} (Semantic Segmentation Masks), train/{ROBOFLOW} "
        "(COCO Segmentation) or data.yaml (YOLOv8) in it; in Roboflow: Versions > Export Dataset > Download zip"
    )
