"""Datasets of other packages: registered by name, so that ``NAME:PATH`` works wherever a dataset is named."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from itertools import accumulate
from typing import TypeVar

from atrous.data.dataset import Dataset, Sample
from atrous.data.sources.registry import SOURCES
from atrous.errors import DatasetError, InputError
from atrous.labels import LabelSet

Opener = Callable[[str, str], Dataset]
"""(path, split) → dataset; raises a :class:`~atrous.errors.DatasetError` for a split that does not exist."""
ENTRY_POINTS = "atrous.datasets"
OPENERS: dict[str, Opener] = {}
"""The registered datasets by name."""

F = TypeVar("F", bound=Opener)


def register_dataset(name: str) -> Callable[[F], F]:
    """Register a function that opens a split of a dataset under a name.

    Afterwards ``NAME:PATH`` is a dataset for :func:`~atrous.data.open_dataset`, the doctor, training and the command
    line. A package can do the same for all its users with an entry point of the group ``atrous.datasets``.

    Args:
        name: what stands before the colon.

    Raises:
        InputError: a dataset source of Atrous has this name, or it contains a colon.

    Example:
        >>> @register_dataset("fields")
        ... def open_fields(path: str, split: str) -> Dataset:
        ...     return Fields(path, split)
    """
    if name in SOURCES or ":" in name or not name:
        raise InputError(f"a dataset can't be registered as '{name}'; choose a name without a colon, none of Atrous's")

    def register(opener: F) -> F:
        OPENERS[name] = opener
        return opener

    return register


def find_opener(spec: str) -> Opener | None:
    """The function that opens ``NAME:PATH``, if the name is registered, by a decorator or by an installed package."""
    name, colon, _ = spec.partition(":")
    if not colon or name in SOURCES:
        return None
    if name not in OPENERS:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            OPENERS[name] = entry.load()
    return OPENERS.get(name)


def open_registered(spec: str, split: str) -> Dataset:
    """Open a split of a registered dataset, or several joined by ``+``.

    Raises:
        DatasetError: the name is not registered, or what its function raises.
    """
    opener = find_opener(spec)
    if opener is None:
        raise DatasetError(f"'{spec}' is not of a registered dataset")
    path = spec.partition(":")[2]
    parts = [opener(path, part) for part in split.split("+")]
    return Joined(f"{spec.partition(':')[0]}:{split}", parts)


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
    def extras(self) -> object:
        return getattr(self.parts[0], "extras", None)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self.parts[part][index - (self._ends[part - 1] if part else 0)]
