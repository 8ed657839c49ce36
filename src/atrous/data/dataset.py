"""What a dataset is: samples of images with masks, and the classes of these."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.data.extras import Extras, Layer
from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.exif import Pixels, turn
from atrous.data.files.image_form import Values
from atrous.data.files.images import DecodedImage
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskRef, read_mask
from atrous.data.files.orientation import agreement, disagreement, shown, size_of
from atrous.data.files.stored import read_as
from atrous.errors import DatasetError, kind_of
from atrous.labels import LabelSet, Mask, ignore_of


@dataclass(frozen=True)
class Sample:
    """An image with its ground truth.

    Args:
        image: uint8 ``(H, W, C)``: RGB; or other channels, also uint16, int16 or float32
            (:class:`atrous.data.Extras` says which).
        mask: uint8 ``(H, W)``: the class of each pixel, 255 to ignore it. For more than 255 classes uint16, and 65535.
        name: for reports, for example that of the image's file.
        auxiliary_masks: masks of auxiliary label sets, like ``mask``, by the name of the head that learns them.
        absent: bool ``(H, W)``, the pixels that were not measured (nodata), which masks ignore; None for none.

    Example:
        >>> import atrous, numpy as np
        >>> atrous.Sample(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8), "black").name
        'black'
    """

    image: Values
    mask: Mask
    name: str
    auxiliary_masks: Mapping[str, Mask] = field(default_factory=dict)
    absent: NDArray[np.bool_] | None = None

    @property
    def shown(self) -> Pixels:
        """The first three channels, to be shown: uint8 ``(H, W, 3)``."""
        return shown_pixels(self.image)


class Dataset(Protocol):
    """What training, evaluation and the doctor need of a dataset.

    It may also have a ``name`` for reports and :class:`~atrous.data.extras.Extras`, as :class:`PairedDataset` has.
    """

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of its classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def require_dataset(dataset: object, argument: str = "dataset") -> None:
    """Refuse an object that is not a :class:`Dataset`, before its attributes are missed somewhere.

    Args:
        dataset: what a user passed.
        argument: where, for the message.

    Raises:
        DatasetError: a part of the interface is missing.
    """
    if missing := [name for name in ("label_set", "__len__", "__getitem__") if not hasattr(dataset, name)]:
        hint = "open_dataset opens 'SOURCE:PATH'" if isinstance(dataset, str) else "atrous.data.wrap adds label_set"
        raise DatasetError(
            f"{argument}: a dataset has label_set, __len__ and __getitem__; {type(dataset).__name__} has no "
            + " and no ".join(missing)
            + (f" ({hint})" if missing == ["label_set"] else "")
        )


def dataset_name(dataset: Dataset) -> str:
    """The name of a dataset in reports: its ``name``, or that of its class if it has none."""
    return str(getattr(dataset, "name", "") or type(dataset).__name__)


def dataset_extras(dataset: Dataset) -> Extras:
    """The additional channels and auxiliary masks of a dataset: its ``extras``, or none."""
    extras: Extras | None = getattr(dataset, "extras", None)
    return Extras() if extras is None else extras


def check_sample(sample: object, dtype: str = "uint8") -> None:
    """Check the types and shapes of a sample.

    Args:
        sample: anything.
        dtype: of the images.

    Raises:
        DatasetError: not a :class:`Sample`, an image other than ``(H, W, C)`` of this type, or a mask other than uint8
            or uint16 ``(H, W)``.
    """
    if not isinstance(sample, Sample):
        raise DatasetError(f"{kind_of(sample)}, expected atrous.data.Sample (atrous.data.wrap makes them)")
    for what, array, dimensions in (("image", sample.image, 3), ("mask", sample.mask, 2)):
        expected = f"{dtype} (H, W, C)" if dimensions == 3 else "uint8 (H, W)"
        dtypes = (dtype,) if dimensions == 3 else ("uint8", "uint16")
        if not isinstance(array, np.ndarray):
            raise DatasetError(f"its {what} is {kind_of(array)}, expected a NumPy array {expected}")
        if array.dtype not in dtypes or array.ndim != dimensions or not array.size:
            raise DatasetError(f"its {what} is {array.dtype} {array.shape}, expected {expected}")


def surrounded(dataset: Dataset, index: int) -> Sample:
    """A sample as an evaluation shows it to a network: a part of a large image with what lies around it, which its mask
    ignores (:mod:`atrous.data.windows`); other samples as they are.
    """
    read = getattr(dataset, "surrounded", dataset.__getitem__)
    sample: Sample = read(index)
    return sample


def region(dataset: Dataset, index: int) -> Sample:
    """What a training crops from: around a part of a large image, arrays that are read where they are sliced
    (:mod:`atrous.data.windows`); other samples as they are.
    """
    read = getattr(dataset, "region", dataset.__getitem__)
    sample: Sample = read(index)
    return sample


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

    def surrounded(self, index: int) -> Sample:
        return surrounded(self.dataset, self.indices[index])


def subset(dataset: Dataset, count: int) -> Dataset:
    """Choose ``count`` samples spread evenly over a dataset; the dataset itself if it has no more."""
    if count >= len(dataset):
        return dataset
    last = len(dataset) - 1
    return Subset(dataset, tuple(round(i * last / max(1, count - 1)) for i in range(count)))


class Joined:
    """Datasets of the same classes, one after the other.

    Args:
        name: for reports.
        parts: at least one.

    Raises:
        DatasetError: the classes differ.
    """

    def __init__(self, name: str, parts: Sequence[Dataset]) -> None:
        self.name, self.parts = name, parts
        self._ends = list(accumulate(len(part) for part in parts))
        if len({part.label_set.names for part in parts}) > 1:
            raise DatasetError(f"the splits of {name} have different classes")

    @property
    def label_set(self) -> LabelSet:
        return self.parts[0].label_set

    @property
    def extras(self) -> Extras:
        return dataset_extras(self.parts[0])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self.parts[part][index - (self._ends[part - 1] if part else 0)]


class ImageRef(Protocol):
    """An image that is not a file of its own, such as a member of a tar."""

    @property
    def name(self) -> str:
        """For reports."""

    def open(self) -> DecodedImage:
        """Decode it.

        Raises:
            ImageError: it can't be read.
        """


@dataclass(frozen=True)
class PairedDataset:
    """Pairs of images and masks that are read when they are asked for.

    Args:
        name: for reports, for example ``voc:val``.
        form: the classes, and how the masks are written.
        pairs: image and mask of each sample; an image is a file, or knows how it is opened.
        extras: additional channels and auxiliary masks.
    """

    name: str
    form: MaskForm
    pairs: tuple[tuple[Path | ImageRef, MaskRef], ...]
    extras: Extras = field(default_factory=Extras)

    @property
    def label_set(self) -> LabelSet:
        return self.form.label_set

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read the image and the mask of a sample, with its additional channels and auxiliary masks.

        Raises:
            DatasetError: two of its files differ in size or in orientation, or it is unclear whether they do.
            ImageError, MaskError: one of them can't be read.
        """
        image_file, mask = self.pairs[index]
        form = self.extras.images
        image = read_as(image_file, form) if isinstance(image_file, Path) else image_file.open()
        layers = [
            _fitting_layer(layer, layer.folder, image_file, image) for layer in self.extras.layers if layer.folder
        ]
        auxiliary = {
            name: _fitting(mask.beside(masks.folder), masks.form, image_file, image)
            for name, masks in self.extras.masks.items()
            if masks.folder
        }
        pixels = np.dstack([image.pixels, *layers]) if layers else image.pixels
        found = Sample(pixels, _fitting(mask, self.form, image_file, image), image_file.name, auxiliary, image.absent)
        return found if image.absent is None else _ignoring_absent(found, image.absent)


def _ignoring_absent(sample: Sample, absent: NDArray[np.bool_]) -> Sample:
    """The sample with pixels that were not measured ignored in all its masks."""

    def ignoring(mask: Mask) -> Mask:
        return np.where(absent, ignore_of(mask), mask)

    auxiliary = {name: ignoring(mask) for name, mask in sample.auxiliary_masks.items()}
    return replace(sample, mask=ignoring(sample.mask), auxiliary_masks=auxiliary)


def _fitting_layer(layer: Layer, folder: Path, image_file: Path | ImageRef, image: DecodedImage) -> Pixels:
    """Read additional channels of an image, which must have its size."""
    file, size = folder / image_file.name, size_of(image.pixels)
    pixels = layer.read(file)
    if size_of(pixels) != size:
        sizes = f"{image_file} is {shown(size)} but {file} {shown(size_of(pixels))}"
        raise DatasetError(f"{sizes}; both must have the same size")
    return pixels


def _fitting(ref: MaskRef, form: MaskForm, image_file: Path | ImageRef, image: DecodedImage) -> Mask:
    """Read a mask, turned as its image."""
    mask = read_mask(ref, form)
    size, drawn = size_of(image.pixels), size_of(mask)
    found = agreement(drawn, size, image.orientation, form.orientation)
    if found == "turn it":
        return turn(mask, image.orientation)
    if found != "fits":
        sizes = f"{image_file} is {shown(size)} but its mask {ref} is {shown(drawn)}"
        raise DatasetError(f"{sizes}; {disagreement(found, drawn, size)}")
    return mask
