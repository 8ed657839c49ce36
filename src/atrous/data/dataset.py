"""What a dataset is: samples of images with masks, and the classes of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.data.extras import Extras
from atrous.data.files.images import DecodedImage, Pixels, open_image, turn
from atrous.data.files.masks import MaskForm, MaskRef, read_mask
from atrous.data.files.orientation import agreement, disagreement, shown, size_of
from atrous.errors import DatasetError
from atrous.labels import LabelSet, Mask


@dataclass(frozen=True)
class Sample:
    """An image, what it shows, and its name.

    Args:
        image: uint8 ``(H, W, C)``: RGB, or other channels (:class:`atrous.data.extras.Extras`).
        mask: uint8 ``(H, W)``, 255 for ignored pixels.
        name: of the image's file.
        further: more masks of the same form by the names of what they tell apart, for models of several heads.
    """

    image: NDArray[np.uint8]
    mask: Mask
    name: str
    further: Mapping[str, Mask] = field(default_factory=dict)

    @property
    def shown(self) -> Pixels:
        """The first three channels, for people: uint8 ``(H, W, 3)``."""
        return np.ascontiguousarray(self.image[..., :3])


class Dataset(Protocol):
    """What training, evaluation and the doctor need of a dataset.

    It may also have a ``name`` for reports and :class:`~atrous.data.extras.Extras`, as :class:`PairedDataset` has.
    """

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of its classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def dataset_name(dataset: Dataset) -> str:
    """The name of a dataset in reports: its ``name``, or that of its class if it has none."""
    return str(getattr(dataset, "name", "") or type(dataset).__name__)


def dataset_extras(dataset: Dataset) -> Extras:
    """The further channels and masks of a dataset: its ``extras``, or none."""
    extras = getattr(dataset, "extras", None)
    return extras if isinstance(extras, Extras) else Extras()


@dataclass(frozen=True)
class Subset:
    """Some samples of a dataset.

    Args:
        dataset: which.
        indices: of the samples, in order.
    """

    dataset: Dataset
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{dataset_name(self.dataset)} ({len(self)} of {len(self.dataset)})"

    @property
    def label_set(self) -> LabelSet:
        return self.dataset.label_set

    @property
    def extras(self) -> Extras:
        return dataset_extras(self.dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


def subset(dataset: Dataset, count: int) -> Dataset:
    """Choose ``count`` samples spread evenly over a dataset; the dataset itself if it has no more."""
    if count >= len(dataset):
        return dataset
    last = len(dataset) - 1
    return Subset(dataset, tuple(round(i * last / max(1, count - 1)) for i in range(count)))


@dataclass(frozen=True)
class PairedDataset:
    """Images and masks as pairs of files.

    Args:
        name: what it is called in reports, for example ``voc:val``.
        form: its classes, and how its masks are written.
        pairs: image and mask of each item.
        extras: more channels, and more masks.
    """

    name: str
    form: MaskForm
    pairs: tuple[tuple[Path, MaskRef], ...]
    extras: Extras = field(default_factory=Extras)

    @property
    def label_set(self) -> LabelSet:
        return self.form.label_set

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """The image and mask of an item, with what else belongs to it.

        Raises:
            DatasetError: two of its files differ in size or in orientation, or it can't be told whether they do.
            ImageError, MaskError: one of them can't be read.
        """
        image_file, mask_ref = self.pairs[index]
        image = open_image(image_file)
        pixels = [image.pixels]
        for layer in self.extras.layers:
            file = layer.folder / image_file.name
            pixels.append(layer.read(file))
            if size_of(pixels[-1]) != size_of(image.pixels):
                sizes = f"{image_file} is {shown(size_of(image.pixels))} but {file} {shown(size_of(pixels[-1]))}"
                raise DatasetError(f"{sizes}; both must have one size")
        further = {
            name: _fitting(mask_ref.beside(masks.folder), masks.form, image_file, image)
            for name, masks in self.extras.masks.items()
        }
        whole = np.dstack(pixels) if len(pixels) > 1 else image.pixels
        return Sample(whole, _fitting(mask_ref, self.form, image_file, image), image_file.name, further)


def _fitting(ref: MaskRef, form: MaskForm, image_file: Path, image: DecodedImage) -> Mask:
    """Read a mask as it lies on its image."""
    mask = read_mask(ref, form)
    size, drawn = size_of(image.pixels), size_of(mask)
    found = agreement(drawn, size, image.orientation, form.orientation)
    if found == "turn it":
        return turn(mask, image.orientation)
    if found != "fits":
        sizes = f"{image_file} is {shown(size)} but its mask {ref} is {shown(drawn)}"
        raise DatasetError(f"{sizes}; {disagreement(found, drawn, size)}")
    return mask
