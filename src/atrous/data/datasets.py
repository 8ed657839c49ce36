"""Datasets of photos with masks; :func:`open_dataset` finds the reader by the name before the colon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.data.findings import DatasetError
from atrous.data.images import open_image, turn
from atrous.data.layouts import list_pairs
from atrous.data.listing import absent_files
from atrous.data.masks import MaskForm, read_mask
from atrous.data.orientation import agreement, disagreement, shown, size_of
from atrous.data.readers import READERS, find_layout
from atrous.labels import LabelSet, Mask

__all__ = ["READERS", "Dataset", "DatasetError", "PairedDataset", "Sample", "open_dataset"]


@dataclass(frozen=True)
class Sample:
    """A photo, what it shows, and its name.

    Args:
        image: uint8 ``(H, W, C)``: RGB, or with more channels behind it (:class:`atrous.data.layouts.Extras`).
        mask: uint8 ``(H, W)``, 255 for ignored pixels.
        name: of the photo's file.
        further: more masks of the same form by the names of what they tell apart, for models of several heads.
    """

    image: NDArray[np.uint8]
    mask: Mask
    name: str
    further: Mapping[str, Mask] = field(default_factory=dict)


class Dataset(Protocol):
    """What training and evaluation need of a dataset."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> LabelSet: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class PairedDataset:
    """Photos and masks as pairs of files.

    Args:
        name: what it is called in reports, for example ``voc:val``.
        form: its classes, and how its masks are written.
        pairs: photo and mask of each item.
    """

    name: str
    form: MaskForm
    pairs: tuple[tuple[Path, Path], ...]

    @property
    def labels(self) -> LabelSet:
        return self.form.labels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """The photo and mask of an item.

        Raises:
            DatasetError: the two differ in size or in orientation, or it can't be told whether they do.
            ImageError, MaskError: one of them can't be read.
        """
        photo, mask_file = self.pairs[index]
        image = open_image(photo)
        mask = read_mask(mask_file, self.form)
        size, drawn = size_of(image.pixels), size_of(mask)
        found = agreement(drawn, size, image.orientation, self.form.orientation)
        if found == "turn it":
            mask = turn(mask, image.orientation)
        elif found != "fits":
            sizes = f"{photo} is {shown(size)} but its mask {mask_file} is {shown(drawn)}"
            raise DatasetError(f"{sizes}; {disagreement(found, drawn, size)}")
        return Sample(image.pixels, mask, photo.name)


def open_dataset(spec: str, split: str) -> PairedDataset:
    """Open a dataset by its specification.

    Args:
        spec: ``voc:PATH``, ``camvid:PATH`` or ``folder:PATH``.
        split: a split's name; several joined by ``+`` make one (``train+val``).

    Raises:
        DatasetError: an unknown reader, a missing place or split, or a split that lists what is not there.
        MaskError: a mask that can't be read, where classes must be counted since nothing names them.
    """
    layout = find_layout(spec)
    pairs = list_pairs(layout, split)
    if not pairs:
        raise DatasetError(f"'{spec}', split '{split}', holds no pictures")
    if findings := absent_files(layout, {split: pairs}):
        raise DatasetError(f"'{spec}', split '{split}': " + "\n".join(finding.sentence() for finding in findings))
    name = f"{spec.partition(':')[0]}:{split}"
    return PairedDataset(name, layout.form(), tuple((pair.photo, pair.mask) for pair in pairs))
