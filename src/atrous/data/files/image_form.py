"""What images contain: how many channels, and numbers of which type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

ImageDtype = Literal["uint8", "uint16", "int16", "float32"]
"""The types of values that networks are trained on; integers of more bits and other floats become float32."""
DTYPES = get_args(ImageDtype)
Values = NDArray[Any]
"""An image ``(H, W, C)`` of one of these types."""


@dataclass(frozen=True)
class ImageForm:
    """What the images of a dataset contain, or those that a model takes.

    Args:
        channels: 1 to n.
        dtype: ``uint8``, ``uint16``, ``int16`` or ``float32``.
        color: whether the first three channels are red, green and blue from 0 to 255: the only ones whose colours
            augmentation may change.

    Raises:
        InputError: fewer than one channel, another type, or colours that are not the first three of 8 bits.

    Example:
        >>> from atrous.data import ImageForm
        >>> str(ImageForm(channels=5, dtype="uint16", color=False))
        '5 channels of uint16'
    """

    channels: int = 3
    dtype: str = "uint8"
    color: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.channels, int) or self.channels < 1:
            raise InputError(f"channels is {self.channels!r}, expected a whole number from 1 on")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}, expected {', '.join(DTYPES)}")
        if self.color and (self.channels < 3 or self.dtype != "uint8"):
            raise InputError(f"color is true, but {self} can't begin with red, green and blue from 0 to 255")

    @property
    def is_rgb(self) -> bool:
        """Whether they are ordinary images: what is decoded becomes 8-bit RGB."""
        return self == ImageForm()

    def __str__(self) -> str:
        return f"{self.channels} channel{'s' if self.channels > 1 else ''} of {self.dtype}"


def trained_dtype(stored: np.dtype[Any]) -> str:
    """The type that values of a file's type are read as, without loss but for numbers of more than 24 bits.

    Example:
        >>> import numpy as np
        >>> [trained_dtype(np.dtype(name)) for name in ("uint8", "int8", "uint16", "int32", "float64")]
        ['uint8', 'int16', 'uint16', 'float32', 'float32']
    """
    if stored.name in DTYPES:
        return stored.name
    return {"bool": "uint8", "int8": "int16"}.get(stored.name, "float32")
