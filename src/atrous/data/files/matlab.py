"""Masks in MATLAB files. Reading them needs scipy, an extra of 35 MB: ``pip install atrous[mat]``."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.limits import DecodeLimitError, check_pixels, read_file
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef
from atrous.data.files.matlab_structure import checked_file, is_version_5, variables
from atrous.errors import InputError
from atrous.labels import IGNORE, Mask

_T = TypeVar("_T")


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
    if values.dtype.kind not in "biuf":
        raise MatrixError("contains text, cells or structs, where a matrix of integers was expected")
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
        data = read_file(self.path)
        size = self._size_of_variable(data)
        return MaskHeader(size if self.same_size else self._mask(data).shape)

    def decode(self) -> DecodedMask:
        data = read_file(self.path)
        self._size_of_variable(data)
        return DecodedMask(str(self), Image.fromarray(self._mask(data)))

    def _mask(self, data: bytes) -> Mask:
        values = _readable(self._values, data)
        try:
            return self.convert(values)
        except MatrixError as error:
            raise MatrixError(f"its {self.variable} {error}") from error

    def _values(self, data: bytes) -> NDArray[Any]:
        file = io.BytesIO(data)
        if is_version_5(data):
            file = checked_file(data, next(found for found in variables(data) if found.name == self.variable))
        values: NDArray[Any] = scipy_io().loadmat(file, variable_names=[self.variable])[self.variable]
        return values

    def _size_of_variable(self, data: bytes) -> tuple[int, int]:
        shapes = _readable(_shapes, data)
        match shapes.get(self.variable):
            case (height, width):
                check_pixels(height, width)
                return height, width
        raise MatrixError(f"it contains {', '.join(shapes) or 'nothing'}; expected a matrix {self.variable}")


def _readable(read: Callable[[bytes], _T], data: bytes) -> _T:
    scipy_io()
    try:
        return read(data)
    except DecodeLimitError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise MatrixError(f"not a readable MATLAB file ({error}); copy or download it again") from error


def _shapes(data: bytes) -> dict[str, tuple[int, ...]]:
    """The shape of each variable."""
    if is_version_5(data):
        return {found.name: found.shape for found in variables(data)}
    return {name: shape for name, shape, _ in scipy_io().whosmat(io.BytesIO(data))}
