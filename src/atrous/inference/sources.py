"""What people hold an image in: a path, bytes, an open file, a Pillow image, an array or a tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.exif import Pixels
from atrous.data.files.image_form import ImageForm, Values
from atrous.data.files.images import DecodedImage, decode_image, to_rgb
from atrous.data.files.stored import read_as
from atrous.errors import InputError, kind_of

if TYPE_CHECKING:
    from torch import Tensor


RGB = ImageForm()
"""Ordinary images."""


class OpenFile(Protocol):
    """A file opened for reading bytes."""

    def read(self) -> bytes: ...


Source: TypeAlias = "str | Path | bytes | OpenFile | Image.Image | Pixels | Tensor"
"""An image: a path, the bytes of a file or the file itself, opened in binary mode; a Pillow image of any mode; an array
uint8 ``(H, W, C)``; or a tensor uint8 ``(C, H, W)``.
"""


def read_source(image: Any, form: ImageForm = RGB) -> DecodedImage:
    """Read an image from whatever it is held in, upright.

    Args:
        image: a path, bytes, an open file, a Pillow image, an array or a tensor.
        form: what it must contain, for a network of other images than 8-bit RGB.

    Raises:
        ImageError: the file or its bytes can't be read.
        InputError: something else, or an array or tensor of another shape, dtype or range.
    """
    if isinstance(image, str | Path):
        return read_as(Path(image), form)
    if isinstance(image, np.ndarray):
        check_pixels(image, "H, W", form)
        return DecodedImage(np.array(image, order="C"))
    if hasattr(image, "permute"):  # a tensor, without importing torch for it
        return DecodedImage(_from_tensor(image, form))
    if not form.is_rgb:
        raise InputError(f"expected a path, an array or a tensor of {form}, not {kind_of(image)}, which is read as RGB")
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if hasattr(image, "read"):
        return _from_file(image)
    raise InputError(
        "an image is a path, bytes, an open file, a Pillow image, a NumPy array (H, W, C) or a tensor (C, H, W), not a "
        f"{type(image).__name__}"
    )


def _from_file(file: OpenFile) -> DecodedImage:
    content: object = file.read()
    name = str(getattr(file, "name", "the file"))
    if not isinstance(content, bytes):
        raise InputError(f"{name} was opened as text; open it in binary mode: open(path, 'rb')")
    if not content:
        raise InputError(f"{name}: nothing left to read, expected an image; rewind it: file.seek(0)")
    return decode_image(content, name)


def _from_tensor(tensor: Tensor, form: ImageForm) -> Values:
    """A tensor's pixels ``(H, W, C)``."""
    shape, dtype, channels = tuple(tensor.shape), str(tensor.dtype), form.channels
    if dtype != f"torch.{form.dtype}" or len(shape) != 3 or shape[0] != channels or not tensor.numel():
        values, stretch = tensor.detach().float().cpu().numpy(), "(255 * x).round().to(torch.uint8)"
        hint = _hint_on_values(values, dtype, stretch) if form.dtype == "uint8" else ""
        if len(shape) == 4:
            hint = "; a batch is a list: predict(model, list(batch))"
        elif len(shape) == 3 and shape[2] == channels != shape[0]:
            hint = "; put the channels first: x.permute(2, 0, 1)"
        raise InputError(
            f"expected a tensor {form.dtype} ({channels}, H, W){_range(form)}, not {dtype.removeprefix('torch.')} "
            f"{shape}{hint}"
        )
    return np.ascontiguousarray(tensor.detach().cpu().permute(1, 2, 0).numpy())


def check_pixels(array: NDArray[Any], axes: str, form: ImageForm) -> None:
    """Refuse an array of another type, other axes or another number of channels than a network takes.

    Args:
        array: anything.
        axes: before the channels, as ``"H, W"``.
        form: of the network's images.

    Raises:
        InputError: with what was found, what was expected, and a remedy where there is a simple one.
    """
    channels = form.channels
    if array.dtype == form.dtype and array.ndim == len(axes.split()) + 1 and array.shape[-1] == channels and array.size:
        return
    kind = "RGB image" if channels == 3 else "image"
    what = f"{kind}s" if axes.startswith("N") else f"an {kind}"
    stretch = "(255 * x).round().astype(np.uint8)"
    hint = _hint_on_values(array, str(array.dtype), stretch) if form.dtype == "uint8" else ""
    if axes == "H, W" and array.ndim == 4:
        hint = "; a batch is a list: predict(model, list(batch))"
    elif array.dtype == np.uint8 and channels == 3 and (array.ndim == 2 or array.shape[-1] == 4):
        hint = "; PIL.Image.fromarray(array) may be grey or RGBA"
    elif array.ndim == 3 and array.shape[0] == channels != array.shape[-1]:
        hint = "; put the channels last: array.transpose(1, 2, 0)"
    raise InputError(
        f"expected {what} as {form.dtype} ({axes}, {channels}){_range(form)}, not {array.dtype} {array.shape}{hint}"
    )


def _range(form: ImageForm) -> str:
    return " with values 0–255" if form.dtype == "uint8" else " with values as in its training data"


def _hint_on_values(values: NDArray[Any], dtype: str, stretch: str) -> str:
    """What to do with values of another type than uint8, by their range."""
    if dtype.endswith("uint8") or not values.size or values.dtype.kind not in "iuf":
        return ""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and "float" in dtype:
        return f" of {low:.3g} to {high:.3g}; stretch it: {stretch}"
    if low >= 0 and high <= 255:
        return f" of {low:.3g} to {high:.3g}; convert it: {stretch.replace('(255 * x)', 'x')}"
    return f" of {low:.3g} to {high:.3g}; undo its normalisation, or call model(x) with what is normalised"
