"""Masks in MATLAB's files, as NYUDv2, SIFT Flow and PASCAL-Context have them.

Reading them needs scipy, which is no dependency of the package: 35 MB for three datasets. ``pip install atrous[mat]``.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from atrous.data.classes import CONTEXT_ANNOTATED, CONTEXT_NUMBERS
from atrous.labels import IGNORE, Mask

VARIABLES = ("S", "segmentation", "LabelMap")
"""What the matrix is called in SIFT Flow, in NYUDv2 and in PASCAL-Context."""


class MatrixError(ValueError):
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

    PASCAL-Context's 459 numbers become those of its 60 classes: background is what is not among the 59.

    Raises:
        FileNotFoundError: there is no such file.
        MatrixError: no file of MATLAB's (up to version 7), no matrix in it that is a mask, or scipy is missing.
    """
    name, _ = _find(path)
    with path.open("rb") as file:
        values = scipy_io().loadmat(file, variable_names=[name])[name]
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    most = CONTEXT_ANNOTATED if name == "LabelMap" else IGNORE
    if low < -1 or high > most or (values != np.trunc(values)).any():
        raise MatrixError(f"its {name} holds {low} to {high}, where whole numbers up to {most} were expected")
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
    return _find(path)[1]


def _find(path: Path) -> tuple[str, tuple[int, int]]:
    """The name and the size of the mask in a file."""
    whosmat = scipy_io().whosmat
    with path.open("rb") as file:
        try:
            held = {name: shape for name, shape, _ in whosmat(file)}
        except Exception as error:  # a damaged file can raise nearly anything inside a decoder
            raise MatrixError(f"no file of MATLAB's that can be read ({error}); copy or download it again") from error
    found = next((name for name in VARIABLES if len(held.get(name, ())) == 2), None)
    if found is None:
        raise MatrixError(f"it holds {', '.join(held) or 'nothing'}; expected a matrix {', '.join(VARIABLES)}")
    return found, held[found]
