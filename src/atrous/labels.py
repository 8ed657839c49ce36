"""Label sets: the names and colours of the classes, and how masks are written as images.

A mask is a uint8 array ``(H, W)``: classes count from 0, and 255 (:data:`IGNORE`) marks ignored pixels. On disk it is a
palette PNG, as PASCAL VOC introduced it: the values are the classes, the palette is only for viewing. With more than
255 classes a mask is uint16, 65535 (:data:`WIDE_IGNORE`) marks ignored pixels, and on disk it is a grey PNG of 16 bits.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atrous.errors import InputError

IGNORE = 255
"""The one ignore value, in losses, metrics, padding and masks."""
WIDE_IGNORE = 65535
"""The ignore value of label sets of more than 255 classes, whose masks are uint16."""
VOID_COLOR = (224, 224, 192)
"""The colour of ignored pixels: VOC's cream."""

Mask = NDArray[np.unsignedinteger[Any]]
"""The class of each pixel ``(H, W)``: uint8, or uint16 for a label set of more than 255 classes."""
Color = tuple[int, int, int]


def voc_color(label: int) -> Color:
    """The PASCAL VOC colour of a label: its bits, in threes, feed R, G and B from the high bit down."""
    r = g = b = 0
    for shift in range(7, -1, -1):
        r |= (label & 1) << shift
        g |= (label >> 1 & 1) << shift
        b |= (label >> 2 & 1) << shift
        label >>= 3
    return r, g, b


def ignore_value(num_classes: int) -> int:
    """The value of ignored pixels beside so many classes: 255, or 65535 beside more than 255."""
    return IGNORE if num_classes <= IGNORE else WIDE_IGNORE


def mask_dtype(num_classes: int) -> type[np.unsignedinteger[Any]]:
    """Of masks of so many classes."""
    return np.uint8 if num_classes <= IGNORE else np.uint16


def ignore_of(mask: Mask) -> np.unsignedinteger[Any]:
    """The value of ignored pixels in a mask, by its dtype."""
    value: np.unsignedinteger[Any] = mask.dtype.type(np.iinfo(mask.dtype).max)
    return value


def ignored(mask: Mask) -> NDArray[np.bool_]:
    """Which pixels of a mask ``(H, W)`` are ignored."""
    return np.asarray(mask == ignore_of(mask))


def one_class_message(name: str = "object") -> str:
    """The message about a single class: softmax over one class is constant, so its loss is 0 and its accuracy 100 %."""
    return f'one class can\'t be distinguished from anything: name the background too: names = ["background", "{name}"]'


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of the real classes, in the order of their label values.

    Args:
        names: one per class; at least two, with the background, and at most 65,535. Masks of more than 255 classes are
            uint16.
        colors: one RGB triple (0–255) per class; the VOC colours when left out.

    Raises:
        InputError: fewer than two classes, too many, a name that is not a string or is repeated, another number of
            colours than names, or a colour that is not three numbers from 0 to 255.

    Example:
        >>> import atrous
        >>> label_set = atrous.LabelSet(("background", "cat"))
        >>> len(label_set), label_set.colors
        (2, ((0, 0, 0), (128, 0, 0)))
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] = ()

    def __post_init__(self) -> None:
        names: object = self.names
        if isinstance(names, str):
            raise InputError(
                f"class names are a list such as ['background', '{names}'], not the single string '{names}'"
            )
        object.__setattr__(self, "names", tuple(self.names))
        colors = self.colors or tuple(voc_color(i) for i in range(len(self.names)))
        object.__setattr__(self, "colors", tuple(_rgb(color) for color in colors))
        if not all(isinstance(name, str) for name in self.names):
            raise InputError(f"class names must be strings, not {list(self.names)}")
        if len(self.names) == 1:
            raise InputError(one_class_message(self.names[0]))
        if not 2 <= len(self.names) <= WIDE_IGNORE:
            raise InputError(f"a label set has 2 to {WIDE_IGNORE} classes, not {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(f"class names must differ; given more than once: {', '.join(twice)}")
        if len(self.colors) != len(self.names):
            raise InputError(f"{len(self.names)} class names but {len(self.colors)} colours")
        if beyond := [color for color in self.colors if not all(0 <= part <= 255 for part in color)]:
            raise InputError(f"colours are three numbers from 0 to 255, not {list(beyond[0])}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignore(self) -> int:
        """The value of ignored pixels in masks of these classes."""
        return ignore_value(len(self))

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Of masks of these classes."""
        return mask_dtype(len(self))

    @classmethod
    def numbered(cls, num_classes: int) -> LabelSet:
        """A label set without real names: ``class 0``, ``class 1``, … in VOC colours."""
        return cls(tuple(f"class {i}" for i in range(num_classes)))

    @classmethod
    def of(cls, classes: LabelSet | Sequence[str]) -> LabelSet:
        """A label set as it is, or one of these class names, in VOC colours."""
        return classes if isinstance(classes, LabelSet) else cls(classes)  # type: ignore[arg-type]  # made a tuple

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LabelSet:
        """The label set that :meth:`to_dict` wrote; ``colors`` may be missing."""
        return cls(data["names"], tuple(data.get("colors", ())))

    def to_dict(self) -> dict[str, Any]:
        """Names and colours as JSON values."""
        return {"names": list(self.names), "colors": [list(color) for color in self.colors]}

    def palette(self) -> NDArray[np.uint8]:
        """The RGB colour of every value of a mask: the ``(256, 3)`` of a palette PNG, or ``(65536, 3)``, uint8. Values
        of no class have VOC's colours, or are black, and ignored pixels have VOC's cream.
        """
        table = np.zeros((self.ignore + 1, 3), np.uint8)
        table[:256] = [voc_color(i) for i in range(256)]
        table[: len(self)] = self.colors
        table[self.ignore] = VOID_COLOR
        return table

    def colorize(self, mask: Mask) -> NDArray[np.uint8]:
        """Turn a mask ``(H, W)`` into an RGB image ``(H, W, 3)``, uint8."""
        return self.palette()[mask]


def _rgb(color: Any) -> Color:
    try:
        r, g, b = color
        return int(r), int(g), int(b)
    except (TypeError, ValueError) as error:
        raise InputError(f"colours are three numbers from 0 to 255, not {color!r}") from error


def encode_mask(mask: Mask, label_set: LabelSet, *, text: Mapping[str, str] | None = None) -> bytes:
    """Encode a mask ``(H, W)`` as the bytes of a palette PNG (a grey one of 16 bits for more than 255 classes), with
    text fields if any are given.

    Run lengths alone are compressed (zlib's ``Z_RLE``): on VOC's masks that takes 0.7 ms in place of the default's
    1.7 ms, and a file is 2.5 kB in place of 2.6 kB, since rows of a mask hardly repeat and runs are long.
    """
    fields = PngInfo()
    for key, value in (text or {}).items():
        fields.add_text(key, value)
    image = Image.fromarray(np.ascontiguousarray(mask, label_set.dtype))
    if label_set.ignore == IGNORE:
        image.putpalette(label_set.palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=fields, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def labels_from_colors(rgb: NDArray[np.uint8], colors: Mapping[Color, int]) -> tuple[Mask, set[Color]]:
    """Turn an RGB mask ``(H, W, 3)`` into labels ``(H, W)``.

    Args:
        rgb: the coloured mask.
        colors: the label of each colour; any other colour is ignored.

    Returns:
        The mask, and the colours that have no label.
    """
    codes = rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    found, positions = np.unique(codes, return_inverse=True)
    known = {r << 16 | g << 8 | b: label for (r, g, b), label in colors.items()}
    wide = max(colors.values(), default=0) > IGNORE
    ignore = WIDE_IGNORE if wide else IGNORE
    dtype: type[np.unsignedinteger[Any]] = np.uint16 if wide else np.uint8
    values = np.array([known.get(int(code), ignore) for code in found], dtype)
    strangers = {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in found if int(c) not in known}
    labels: Mask = values[positions].reshape(rgb.shape[:2])
    return labels, strangers
