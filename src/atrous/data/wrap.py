"""Wrapping datasets of other libraries: (image, mask) pairs as in torchvision, or rows of columns as in datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.dataset import Sample
from atrous.data.extras import Extras
from atrous.data.files.exif import Pixels
from atrous.data.files.images import to_rgb
from atrous.errors import InputError, kind_of
from atrous.labels import LabelSet, Mask

Key = int | str


class Indexed(Protocol):
    """What :func:`wrap` takes: a ``torch.utils.data.Dataset`` with a length, a ``datasets.Dataset``, a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class WrappedDataset:
    """A dataset of another library as a dataset of Atrous; made by :func:`wrap`."""

    dataset: Indexed = field(repr=False)
    label_set: LabelSet
    image: Key
    mask: Key
    name: str
    extras: Extras
    ignore: tuple[int, ...]
    offset: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample at an index.

        Raises:
            InputError: an image or a mask of a wrong type, dtype, shape or size, or mask values outside the classes.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        name = f"{self.name}[{index}]"
        row = self.dataset[index]
        mask = self._labels(to_values(_part(row, self.mask, name), f"{name}: mask"), f"{name}: mask")
        image = to_image(_part(row, self.image, name), f"{name}: image", mask.shape)
        if mask.shape != image.shape[:2]:
            raise InputError(f"{name}: image {image.shape[:2]} and mask {mask.shape} differ in size (H, W)")
        return Sample(image, mask, name)

    def _labels(self, values: NDArray[np.int64], where: str) -> Mask:
        ignored = np.isin(values, (*self.ignore, self.label_set.ignore))
        labels = values - self.offset
        wrong = ~ignored & ((labels < 0) | (labels >= len(self.label_set)))
        if wrong.any():
            shown = ", ".join(map(str, np.unique(values[wrong])[:10]))
            last = self.offset + len(self.label_set) - 1
            void = sorted({*self.ignore, self.label_set.ignore})
            raise InputError(
                f"{where} has values outside the classes: {shown}; expected {self.offset} to {last}, or "
                f"{', '.join(map(str, void))} to ignore. Name more classes, or pass "
                "ignore=(...)"
            )
        return np.where(ignored, self.label_set.ignore, labels).astype(self.label_set.dtype)


def wrap(
    dataset: Indexed,
    label_set: LabelSet | Sequence[str],
    *,
    image: Key = 0,
    mask: Key = 1,
    name: str = "",
    ignore: Sequence[int] = (),
    offset: int = 0,
    extras: Extras | None = None,
) -> WrappedDataset:
    """Wrap a dataset of another library, so that training, evaluation and the doctor take it.

    Images may be PIL images of any mode, or arrays or tensors: ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, uint8, or
    floating point from 0 to 1. They must not be normalised: models normalise their input themselves. Masks may be PIL
    images whose values are the classes, or integer arrays or tensors ``(H, W)`` or ``(1, H, W)``.

    Args:
        dataset: has a length, and gives pairs or rows by index.
        label_set: the classes, or only their names.
        image: where the image is: an index of a pair, or a column.
        mask: where the mask is.
        name: for reports; the name of the class of ``dataset`` when left out.
        ignore: values of the masks to ignore, besides 255 (65535 for more than 255 classes).
        offset: value of the first class: 1 if 0 is in ``ignore``.
        extras: for images of other channels than RGB.

    Returns:
        A dataset of :class:`~atrous.data.Sample`; a sample that can't be used raises an ``InputError`` that names it.

    Raises:
        InputError: ``dataset`` has no length, or can't be indexed.

    Example:
        >>> import atrous, numpy as np
        >>> pairs = [(np.zeros((40, 60, 3), np.uint8), np.ones((40, 60), np.uint8))]
        >>> data = atrous.wrap(pairs, ("ground", "sky"), offset=1)  # values 1 and 2 are the classes
        >>> data[0].image.shape, int(data[0].mask.max())
        ((40, 60, 3), 0)

        Columns of a Hugging Face dataset are named: ``wrap(rows, ADE20K, image="image", mask="annotation", offset=1)``.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"{kind_of(dataset)} has no length or can't be indexed; expected a map-style dataset (of Hugging "
            "Face's datasets, one that is not streamed)"
        )
    title = name or type(dataset).__name__
    return WrappedDataset(
        dataset, LabelSet.of(label_set), image, mask, title, extras or Extras(), tuple(ignore), offset
    )


def to_image(value: object, where: str = "image", size: tuple[int, ...] = ()) -> Pixels:
    """An image of another library as uint8 ``(H, W, C)``.

    Args:
        value: a PIL image; or an array or tensor ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, uint8, or floating point
            from 0 to 1.
        where: what to call it in an error.
        size: height and width, where known, by which ``(H, W, C)`` and ``(C, H, W)`` are told apart; if both fit,
            tensors are ``(C, H, W)`` and arrays ``(H, W, C)``.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, Image.Image):
        return to_rgb(value).pixels
    array = _array(value, where)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{where} has the shape {array.shape}; expected (H, W), (H, W, C) or (C, H, W)")
    if array.ndim == 2:
        array = array[..., None]
    elif _channels_first(array.shape, size, tensor=_is_tensor(value)):
        array = array.transpose(1, 2, 0)
    pixels = _as_uint8(array, where)
    return np.ascontiguousarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)


def _channels_first(shape: tuple[int, ...], size: tuple[int, ...], *, tensor: bool) -> bool:
    first, last = shape[1:] == size, shape[:2] == size
    if first == last:  # both or neither: by the number of channels
        first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
    return tensor if first and last else first


def _as_uint8(array: NDArray[Any], where: str) -> Pixels:
    if array.dtype == np.uint8:
        pixels: Pixels = array
        return pixels
    if array.dtype.kind != "f":
        raise InputError(f"{where} is {array.dtype}; expected uint8, or floating point from 0 to 1")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{where} has values from {low:g} to {high:g}; expected 0 to 1 for floating point. Models normalise their "
            "input themselves: leave normalisation out of the dataset's transforms"
        )
    scaled: Pixels = np.rint(array * 255).astype(np.uint8)
    return scaled


def to_values(value: object, where: str = "mask") -> NDArray[np.int64]:
    """The values of a mask of another library, int64 ``(H, W)``.

    Args:
        value: a PIL image whose values are the classes; or an integer array or tensor ``(H, W)`` or ``(1, H, W)``.
        where: what to call it in an error.

    Raises:
        InputError: anything else.
    """
    array = np.asarray(value) if isinstance(value, Image.Image) else _array(value, where)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        hint = "; a coloured mask must be mapped to classes first" if array.ndim == 3 else ""
        raise InputError(f"{where} has the shape {array.shape}; expected (H, W){hint}")
    if array.dtype.kind not in "iub":
        raise InputError(f"{where} is {array.dtype}; expected integers, the classes (a ToTensor transform scales them)")
    return array.astype(np.int64)


def _is_tensor(value: object) -> TypeGuard[Any]:
    return hasattr(value, "detach")  # of torch, which need not be imported for this


def _array(value: object, where: str) -> NDArray[Any]:
    array = np.asarray(value.detach().cpu() if _is_tensor(value) else value)
    if array.dtype.kind not in "iubf":
        raise InputError(f"{where} is {kind_of(value)}; expected a PIL image, an array or a tensor")
    return array


def _part(row: Any, key: Key, where: str) -> object:
    try:
        return row[key]
    except (KeyError, IndexError, TypeError) as error:
        there = f"columns {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"{kind_of(row)}"
        raise InputError(f"{where} has no {key!r}, but {there}; pass image=... and mask=...") from error
