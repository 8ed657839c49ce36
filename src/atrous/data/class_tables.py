"""Class tables: renaming, merging, leaving out and reordering the classes of a dataset or of a model."""

from __future__ import annotations

import csv
import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atrous.data.sources.annotated import BACKGROUND, VOID
from atrous.data.sources.labels_toml import read_text
from atrous.data.sources.names import did_you_mean
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, LabelSet, Mask, ignore_value

SHIPPED = Path(__file__).parent / "tables"
"""Tables that can be named without a path: ``coco-to-voc``."""
FORM = (
    'a CSV with the header class,new and a line for each class, or a TOML with [classes] and lines class = "new"; new '
    "is a name, background, or 255 to ignore"
)
_BACKGROUND = "background"


@dataclass(frozen=True)
class ClassTable:
    """What each class becomes.

    Args:
        file: of the table, for messages.
        new: by class, a name or a number as text, the name of the new class; ``background``; or None to ignore it.
        order: the names of the new classes in their order, or some of them; the others follow as they are mentioned.
    """

    file: str
    new: Mapping[str, str | None]
    order: tuple[str, ...] = ()

    def applied(self, label_set: LabelSet) -> ClassMap:
        """The table for the classes of a label set.

        Raises:
            DatasetError: a class that the table leaves out, has twice (by name and number) or has and the label set
                has not; or fewer than two classes remain.
        """
        known = {key for label, name in enumerate(label_set.names) for key in (name, str(label))}
        if strangers := [key for key in self.new if key not in known]:
            raise DatasetError(
                f"{self.file}: the class '{strangers[0]}' is not one of the {len(label_set)} classes"
                f"{did_you_mean(strangers[0], label_set.names)}: {', '.join(label_set.names)}"
            )
        entries = [self._entry(label, name) for label, name in enumerate(label_set.names)]
        names = self._new_names([entry for entry in entries if entry])
        numbers = [ignore_value(len(names)) if entry is None else names.index(entry) for entry in entries]
        first = {number: label for label, number in reversed(list(enumerate(numbers)))}
        colors = [label_set.colors[first[number]] if number in first else (0, 0, 0) for number in range(len(names))]
        try:
            return ClassMap(LabelSet(tuple(names), tuple(colors)), tuple(numbers))
        except InputError as error:
            raise DatasetError(f"{self.file}: {error}") from error

    def _entry(self, label: int, name: str) -> str | None:
        given = [key for key in dict.fromkeys((name, str(label))) if key in self.new]
        if len(given) > 1:
            raise DatasetError(f"{self.file} has the class '{name}' twice: by its name, and as {label}")
        if given:
            return self.new[given[0]]
        if name.lower() in BACKGROUND:
            return _BACKGROUND
        raise DatasetError(
            f"{self.file} leaves out the class '{name}' ({label}); write what becomes of it: its own name to keep it, "
            "255 to ignore it, background to drop it"
        )

    def _new_names(self, mentioned: Sequence[str]) -> list[str]:
        by_table = [entry for entry in self.new.values() if entry and entry in mentioned]
        if absent := [name for name in self.order if name not in mentioned]:
            raise DatasetError(f"{self.file}: names has '{absent[0]}', which no class becomes")
        background = [_BACKGROUND] if _BACKGROUND in mentioned and _BACKGROUND not in self.order else []
        return list(dict.fromkeys([*background, *self.order, *by_table, *mentioned]))


@dataclass(frozen=True)
class ClassMap:
    """The classes after a table, and the new label of each class before it; that of ignored pixels for
    those that are ignored.
    """

    label_set: LabelSet
    numbers: tuple[int, ...] = field(repr=False)

    def lookup(self) -> Mask:
        """The new label of each label, ``(256,)``, or ``(65536,)`` for more than 255 classes before it."""
        table = np.full(ignore_value(len(self.numbers)) + 1, self.label_set.ignore, self.label_set.dtype)
        table[: len(self.numbers)] = self.numbers
        return table


def read_class_table(place: str | Path) -> ClassTable:
    """Read a table: a CSV or TOML file, or the name of a shipped one, such as ``coco-to-voc``.

    Raises:
        DatasetError: missing, or in another form.
    """
    file = Path(place).expanduser()
    shipped = SHIPPED / f"{place}.toml"
    if not file.is_file() and shipped.is_file():
        file = shipped
    if not file.is_file():
        there = ", ".join(sorted(table.stem for table in SHIPPED.glob("*.toml")))
        raise DatasetError(f"there is no class table {place}; expected a file, or one of {there}")
    return _read(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(file: Path, modified: int) -> ClassTable:  # noqa: ARG001 - part of the key
    try:
        text = read_text(file)
        rows, order = _toml(text) if file.suffix == ".toml" else (_csv(text), ())
        new = {key.strip(): _new(value) for key, value in rows}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, csv.Error) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{file}: {reason}; expected {FORM}") from error
    if len(new) < len(rows):
        twice = next(key for place, (key, _) in enumerate(rows) if key in [other for other, _ in rows[:place]])
        raise DatasetError(f"{file} has the class '{twice}' twice")
    return ClassTable(str(file), new, order)


def _toml(text: str) -> tuple[list[tuple[str, object]], tuple[str, ...]]:
    table = tomllib.loads(text)
    if unknown := set(table) - {"classes", "names"}:
        raise InputError(f"unknown key {', '.join(sorted(unknown))}")
    return list(table["classes"].items()), tuple(str(name) for name in table.get("names", ()))


def _csv(text: str) -> list[tuple[str, object]]:
    header, *rows = (row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row)
    if [cell.strip().lower() for cell in header] != ["class", "new"]:
        raise InputError(f"the header {','.join(header)}")
    if wrong := [row for row in rows if len(row) != 2]:
        raise InputError(f"the line {','.join(wrong[0])}")
    return [(key, value) for key, value in rows]


def _new(value: object) -> str | None:
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value).strip():
        raise InputError(f"a class becomes {value!r}")
    name = str(value).strip()
    if name == str(IGNORE) or name.lower() in VOID:
        return None
    if name.isdigit():
        raise InputError(f"a class becomes {name}, which is a number; write the name of the new class")
    return _BACKGROUND if name.lower() in BACKGROUND else name
