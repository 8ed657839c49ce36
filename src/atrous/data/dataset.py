"""What a dataset is: samples of images with masks, and the classes of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """What training and evaluation need of a dataset."""

    @property
    def name(self) -> str: ...

    @property
    def label_set(self) -> LabelSet: ...

    @property
    def extras(self) -> Extras: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


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

    def some(self, count: int) -> PairedDataset:
        """So many of its items, spread evenly; all of them where there are not so many. The name says how many."""
        if count >= len(self):
            return self
        places = [round(i * (len(self) - 1) / max(1, count - 1)) for i in range(count)]
        pairs = tuple(self.pairs[place] for place in places)
        return replace(self, name=f"{self.name} ({count} of {len(self)})", pairs=pairs)

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
