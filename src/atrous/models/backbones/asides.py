"""Objects that PyTorch files contain beside tensors: nothing of them is built, and no code of theirs is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self

from torch.serialization import safe_globals


class Aside(dict[Any, Any]):
    """Takes the place of such an object; its arguments, state and items are dropped."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return dict.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""


_NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")),
    *(
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib.PurePosixPath",
        "types.SimpleNamespace",
    ),
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)
"""A best score, the command line, Lightning's hyperparameters: what the usual training programs save."""
_ALLOWED = [(Aside, name) for name in _NAMES]
_LOCK = Lock()


@contextmanager
def ignoring_asides() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` skip the usual objects beside tensors instead of refusing the file."""
    with _LOCK, safe_globals(_ALLOWED):  # type: ignore[arg-type]  # the list is torch's, for all threads
        yield
