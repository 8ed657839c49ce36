"""A dataset with a class table: its masks have the classes of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from atrous.data.class_tables import ClassMap, read_class_table
from atrous.data.dataset import Dataset, Sample, dataset_extras, dataset_name
from atrous.data.extras import Extras
from atrous.data.files.mask_form import MaskForm, look_up
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef, read_mask
from atrous.data.findings import Finding
from atrous.data.sources.base import DatasetSource, Listed
from atrous.data.sources.spec import with_options
from atrous.errors import DatasetError
from atrous.labels import LabelSet, Mask


@dataclass(frozen=True)
class ReclassedMask(MaskRef):
    """A mask whose labels are those of a class table.

    Args:
        path: of the mask.
        mask: as the dataset has it.
        form: how that is written.
        lookup: the new label of each label.
    """

    mask: MaskRef
    form: MaskForm = field(repr=False, compare=False)
    lookup: Mask = field(repr=False, compare=False)
    expected: ClassVar[str] = "a mask"

    def __str__(self) -> str:
        return str(self.mask)

    def exists(self) -> bool:
        return self.mask.exists()

    def boxes(self) -> tuple[str, ...]:
        return self.mask.boxes()

    def header(self) -> MaskHeader:
        header = self.mask.header()
        return header._replace(mode="L" if self.lookup.dtype == np.uint8 else "I;16")

    def open(self) -> DecodedMask:
        return self.decode()

    def decode(self) -> DecodedMask:
        labels = read_mask(self.mask, self.form)
        return DecodedMask(str(self), Image.fromarray(look_up(labels, self.lookup)))


class ReclassedSource:
    """A dataset source with a class table.

    Args:
        source: with its own classes.
        place: of the table.

    Raises:
        DatasetError: the table can't be read, or the dataset has auxiliary masks with classes of their own.
    """

    def __init__(self, source: DatasetSource, place: str | Path) -> None:
        self.source, self.table, self._place = source, read_class_table(place), place
        self.extras = source.extras
        if source.extras.masks:
            raise DatasetError(f"{source.spec} has more than one set of classes, which a class table can't change")

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def spec(self) -> str:
        return with_options(self.source.spec, classes=self._place)

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def labels_file(self) -> Path | None:
        return self.source.labels_file

    @property
    def repairable(self) -> bool:
        return self.source.repairable

    def splits(self) -> list[str]:
        return self.source.splits()

    def list_file(self, split: str) -> Path:
        return self.source.list_file(split)

    def listed(self, split: str) -> list[Listed]:
        form, _ = self.source.likely_form()
        lookup = self.table.applied(form.label_set).lookup()
        return [
            pair._replace(mask=ReclassedMask(pair.mask.path, pair.mask, form, lookup))
            for pair in self.source.listed(split)
        ]

    def form(self) -> MaskForm:
        return self._changed(self.source.form())

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        form, findings = self.source.likely_form()
        return self._changed(form), findings

    def _changed(self, form: MaskForm) -> MaskForm:
        return MaskForm(self.table.applied(form.label_set).label_set, orientation=form.orientation)

    def unused_masks(self) -> list[Path]:
        return self.source.unused_masks()

    def unlisted_images(self) -> list[Path]:
        return self.source.unlisted_images()


class ReclassedDataset:
    """A dataset in Python with a class table.

    Args:
        dataset: with its own classes.
        place: of the table.
    """

    def __init__(self, dataset: Dataset, place: str | Path) -> None:
        self.dataset = dataset
        self._map: ClassMap = read_class_table(place).applied(dataset.label_set)

    @property
    def name(self) -> str:
        return dataset_name(self.dataset)

    @property
    def label_set(self) -> LabelSet:
        return self._map.label_set

    @property
    def extras(self) -> Extras:
        return dataset_extras(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return replace(sample, mask=look_up(sample.mask, self._map.lookup()))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
