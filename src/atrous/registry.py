"""Registries: a name maps to a function. Other packages add theirs by a decorator or by an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from atrous.errors import InputError

Entry = TypeVar("Entry")
Function = TypeVar("Function", bound=Callable[..., Any])


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Functions (or small records of them) by name.

    An installed package is asked when a name is looked up that nothing has registered: its entry point of that name in
    ``group`` is loaded, which runs the decorator of the function that it points to. Names are listed without loading.

    Args:
        kind: what the names are, for messages: ``model``.
        group: the entry point group, such as ``atrous.models``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._entries: dict[str, Entry] = {}
        self._owners: dict[str, str] = {}

    def add(self, name: str, function: Callable[..., Any], entry: Entry) -> None:
        """Register a function under a name. Registering the same function again is fine (a notebook cell run twice).

        Raises:
            InputError: another function has the name.
        """
        owner = f"{function.__module__}.{function.__qualname__}"
        if self._owners.setdefault(name, owner) != owner:
            raise InputError(f"there is already a {self.kind} '{name}' ({self._owners[name]}); choose another name")
        self._entries[name] = entry

    def find(self, name: str) -> Entry:
        """What is registered under a name.

        Raises:
            InputError: nothing is, or the package that has it can't be imported.
        """
        if name not in self:
            raise InputError(f"no {self.kind} '{name}'; there are: {', '.join(sorted(self))}")
        return self[name]

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries and (point := self._installed().get(name)):
            self._load(point)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries.keys() | self._installed().keys())

    def __len__(self) -> int:
        return len(self._entries.keys() | self._installed().keys())

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _load(self, point: EntryPoint) -> None:
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"{self.kind} '{point.name}' can't be loaded from {point.value}: {error}") from error
        if point.name not in self._entries:
            raise InputError(
                f"{point.value} was loaded for the {self.kind} '{point.name}', but registers nothing of that name"
            )
