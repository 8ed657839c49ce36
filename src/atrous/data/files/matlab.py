"""Masks in MATLAB files. Reading them needs scipy, an extra of 35 MB: ``pip install atrous[mat]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.limits import check_pixels
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef
from atrous.errors import InputError
from atrous.labels import IGNORE, Mask


class MatrixError(InputError):
    """A MATLAB file that does not contain the expected mask; the message says what it contains."""


def scipy_io() -> ModuleType:
    """The part of scipy that reads MATLAB files.

    Raises:
        MatrixError: it is not installed.
    """
    try:
        import scipy.io
    except ImportError as error:
        raise MatrixError("masks in .mat files need scipy: pip install 'atrous[mat]'") from error
    return scipy.io  # type: ignore[no-any-return]


def whole_numbers(values: NDArray[Any], largest: int = IGNORE) -> NDArray[np.int64]:
    """Integers of a matrix of any type ``(H, W)``, from -1 to ``largest``.

    Raises:
        MatrixError: other values.
    """
    low, high = values.min(initial=0), values.max(initial=0)
    if low < -1 or high > largest or (values != np.trunc(values)).any():
        raise MatrixError(f"contains {low:g} to {high:g}, where integers up to {largest} were expected")
    return values.astype(np.int64)


def as_labels(values: NDArray[Any]) -> Mask:
    """A matrix of labels ``(H, W)`` as uint8; -1 is read as 255.

    Raises:
        MatrixError: other values than -1 to 255.
    """
    numbers = whole_numbers(values)
    return np.where(numbers == -1, IGNORE, numbers).astype(np.uint8)


@dataclass(frozen=True)
class MatlabMask(MaskRef):
    """A mask in a MATLAB file (up to version 7).

    Args:
        path: the file.
        variable: the variable that contains the mask.
        convert: from its value to a mask, uint8 ``(H, W)``; may raise a :class:`MatrixError` that continues
            "its VARIABLE ".
        same_size: whether the variable has the size of the mask.
    """

    variable: str
    convert: Callable[[NDArray[Any]], Mask] = as_labels
    same_size: bool = True
    expected: ClassVar[str] = "a .mat file, or in its place a PNG,"

    def header(self) -> MaskHeader:
        size = self._size_of_variable()
        return MaskHeader(size if self.same_size else self._mask().shape)

    def decode(self) -> DecodedMask:
        self._size_of_variable()
        return DecodedMask(str(self), Image.fromarray(self._mask()))

    def _mask(self) -> Mask:
        values = self._read(partial(scipy_io().loadmat, variable_names=[self.variable]))[self.variable]
        try:
            return self.convert(values)
        except MatrixError as error:
            raise MatrixError(f"its {self.variable} {error}") from error

    def _size_of_variable(self) -> tuple[int, int]:
        shapes = {name: shape for name, shape, _ in self._read(scipy_io().whosmat)}
        match shapes.get(self.variable):
            case (height, width):
                check_pixels(height, width)
                return height, width
        raise MatrixError(f"it contains {', '.join(shapes) or 'nothing'}; expected a matrix {self.variable}")

    def _read(self, read: Callable[[BinaryIO], Any]) -> Any:
        try:
            with self.path.open("rb") as file:
                return read(file)
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged file can raise nearly anything inside a decoder
            raise MatrixError(f"not a readable MATLAB file ({error}); copy or download it again") from error
