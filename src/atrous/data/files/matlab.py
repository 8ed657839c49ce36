"""Masks in MATLAB's files, as NYUDv2, SIFT Flow, PASCAL-Context and PASCAL-Part have them.

Reading them needs scipy, which is no dependency of the package: 35 MB for four datasets. ``pip install atrous[mat]``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.label_sets import CONTEXT_ANNOTATED, CONTEXT_NUMBERS, PARTS_MERGED, PERSON_PART
from atrous.labels import IGNORE, Mask

VARIABLES = ("S", "segmentation", "LabelMap")
"""What the matrix is called in SIFT Flow, in NYUDv2 and in PASCAL-Context."""
PARTS = "anno"
"""What the objects with their parts are called in PASCAL-Part."""


class MatrixError(InputError):
    """A MATLAB file that holds no mask; the message says what it holds."""


def scipy_io() -> ModuleType:
    """The part of scipy that reads MATLAB's files.

    Raises:
        MatrixError: it is not installed.
    """
    try:
        import scipy.io
    except ImportError as error:
        raise MatrixError("masks in .mat files need scipy: pip install 'atrous[mat]'") from error
    return scipy.io  # type: ignore[no-any-return]


def read_matrix(path: Path) -> Mask:
    """Read a mask as it stands in its file, uint8 ``(H, W)``; -1, SIFT Flow's void, is read as 255.

    PASCAL-Context's 459 numbers become those of its 60 classes: background is what is not among the 59. PASCAL-Part's
    objects become the 7 classes of PASCAL-Person-Part.

    Raises:
        FileNotFoundError: there is no such file.
        MatrixError: no file of MATLAB's (up to version 7), no matrix in it that is a mask, or scipy is missing.
    """
    name, _ = _find(path)
    if name == PARTS:
        return _merged_parts(path)
    values = _load(path, name)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    most = CONTEXT_ANNOTATED if name == "LabelMap" else IGNORE
    if low < -1 or high > most or (values != np.trunc(values)).any():
        raise MatrixError(f"its {name} holds {low} to {high}, where integers up to {most} were expected")
    if name == "LabelMap":
        classes = np.zeros(CONTEXT_ANNOTATED + 1, np.uint8)
        classes[list(CONTEXT_NUMBERS.values())] = np.arange(1, len(CONTEXT_NUMBERS) + 1)
        values = classes[values.astype(np.int64)]
    mask: Mask = np.where(values == -1, IGNORE, values).astype(np.uint8)
    return mask


def matrix_size(path: Path) -> tuple[int, int]:
    """Height and width of the mask in a file, most of which is not read.

    Raises:
        As :func:`read_matrix`.
    """
    name, size = _find(path)
    return _merged_parts(path).shape if name == PARTS else size


def _find(path: Path) -> tuple[str, tuple[int, int]]:
    """The name and the size of the mask in a file."""
    held = {name: shape for name, shape, _ in _read(path, scipy_io().whosmat)}
    found = next((name for name in (*VARIABLES, PARTS) if len(held.get(name, ())) == 2), None)
    if found is None:
        expected = f"a matrix {', '.join(VARIABLES)} or PASCAL-Part's {PARTS}"
        raise MatrixError(f"it holds {', '.join(held) or 'nothing'}; expected {expected}")
    return found, held[found]


def _load(path: Path, name: str) -> NDArray[Any]:
    found: NDArray[Any] = _read(path, partial(scipy_io().loadmat, variable_names=[name]))[name]
    return found


def _read(path: Path, read: Callable[[BinaryIO], Any]) -> Any:
    try:
        with path.open("rb") as file:
            return read(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise MatrixError(f"no file of MATLAB's that can be read ({error}); copy or download it again") from error


def _merged_parts(path: Path) -> Mask:
    """The parts of the persons in a file of PASCAL-Part: uint8 ``(H, W)``, later parts over earlier ones."""
    (annotation,) = _load(path, PARTS).ravel()
    try:
        things = annotation["objects"].ravel()
        mask: Mask = np.zeros(things[0]["mask"].shape, np.uint8)
        for person in (thing for thing in things if thing["class"].item() == "person"):
            for part in person["parts"].ravel():
                mask[part["mask"] > 0] = PERSON_PART.names.index(PARTS_MERGED[part["part_name"].item()])
    except (IndexError, KeyError, ValueError) as error:
        raise MatrixError(
            f"its {PARTS} is not as in PASCAL-Part ({type(error).__name__}: {error}); expected objects with class, "
            f"mask and parts, and of a person the parts {', '.join(PARTS_MERGED)}"
        ) from error
    return mask
