"""How the masks of a folder are written: from ``labels.toml``, or without one from the values in the masks."""

from __future__ import annotations

import difflib
import functools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atrous.data.files.masks import Encoding, MaskError, MaskFile, MaskForm
from atrous.data.files.threads import read_all
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, number
from atrous.errors import DatasetError, InputError
from atrous.label_sets import VOC
from atrous.labels import IGNORE, Color, LabelSet

KEYS = ("names", "colors", "encoding", "values", "ignore", "orientation")
GAP = 8
"""Without ``labels.toml``, values are not class numbers if this many below the largest, and most, are unused."""


def read_form(file: Path) -> MaskForm:
    """Read a ``labels.toml``.

    Raises:
        DatasetError: it can't be read, or its content is invalid.
    """
    try:
        return _form(tomllib.loads(read_text(file)))
    except (TypeError, ValueError) as error:  # TOML's own errors are ValueErrors
        raise DatasetError(
            f'{file}: {error}; expected names = ["background", ...], and if wanted colors = [[r, g, b], ...], '
            'encoding = "index" or "rgb", values = [the value on disk of each class], ignore = [values, or colours of '
            'RGB masks], orientation = "upright" or "stored"'
        ) from error


def read_text(file: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it has another encoding.
    """
    data = file.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("written in UTF-16; save it again as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start}); save it again as UTF-8") from error


def _form(table: Mapping[str, Any]) -> MaskForm:
    if unknown := sorted(set(table) - set(KEYS)):
        near = difflib.get_close_matches(unknown[0], KEYS, 1)
        raise InputError(f"unknown key {', '.join(unknown)}" + (f" (did you mean {near[0]}?)" if near else ""))
    for key in ("names", "colors", "values", "ignore"):
        if key in table and not isinstance(table[key], list):
            value = json.dumps(table[key], ensure_ascii=False)
            raise InputError(f"{key} is {value}, expected a list; write {key} = [{value}]")
    if "names" not in table:
        raise InputError("names is missing")
    encoding, orientation = table.get("encoding", "index"), table.get("orientation")
    if encoding not in ("index", "rgb"):
        raise InputError(f"encoding is {encoding!r}")
    if orientation not in (None, "upright", "stored"):
        raise InputError(f"orientation is {orientation!r}")
    labels = LabelSet.from_dict(dict(table))
    if encoding == "rgb":
        _check_colors(labels, declared="colors" in table)
    values = _values(table.get("values", []), labels, encoding)
    ignore = tuple(_ignored(value, encoding) for value in table.get("ignore", ()))
    return MaskForm(labels, encoding, values, ignore, orientation)


def _check_colors(label_set: LabelSet, declared: bool) -> None:
    if not declared and label_set.names != VOC.names[: len(label_set)]:
        raise InputError('encoding is "rgb" but there are no colors; write colors = [[r, g, b], ...], one per class')
    if len(set(label_set.colors)) < len(label_set):
        raise InputError("two classes have the same colour")


def _values(values: list[Any], label_set: LabelSet, encoding: Encoding) -> tuple[int, ...]:
    if values and encoding == "rgb":
        raise InputError('values are for encoding = "index"; RGB masks have colors')
    if values and len(values) != len(label_set):
        raise InputError(f"{len(label_set)} class names but {len(values)} values")
    if len(set(values)) < len(values):
        raise InputError("two classes have the same value")
    return tuple(_value(value, "values") for value in values)


def _ignored(value: Any, encoding: Encoding) -> int | Color:
    if encoding == "rgb":
        if not isinstance(value, list) or len(value) != 3:
            raise InputError(
                f"ignore contains {value!r}, which is not a colour; RGB masks need ignore = [[r, g, b], ...]"
            )
        return value[0], value[1], value[2]
    return _value(value, "ignore")


def _value(value: Any, key: str) -> int:
    if not isinstance(value, int) or not 0 <= value <= IGNORE:
        raise InputError(f"{key} contains {value!r}, expected integers from 0 to {IGNORE}")
    return value


def toml_of(form: MaskForm) -> str:
    """Write a form as the text of a ``labels.toml``: names, and whatever differs from the defaults."""
    lines = [f"names = {json.dumps(form.label_set.names, ensure_ascii=False)}"]
    if form.label_set.colors != LabelSet(form.label_set.names).colors:
        lines.append(f"colors = {json.dumps(form.label_set.colors)}")
    lines += [f"values = {json.dumps(form.values)}"] if form.values else []
    lines += [f'orientation = "{form.orientation}"'] if form.orientation else []
    return "\n".join(lines) + "\n"


def values_seen(masks: Sequence[Path]) -> dict[Path, frozenset[int] | MaskError]:
    """The values in each index mask, or why it has none; an unchanged file is read once per process."""
    return dict(zip(masks, read_all(_values_in, masks), strict=True))


def _values_in(mask: Path) -> frozenset[int] | MaskError:
    try:
        status = mask.stat()
    except OSError:
        return MaskError(f"{mask}: there is no such mask")
    return _read_values_in((mask, status.st_mtime_ns, status.st_size))


@functools.cache
def _read_values_in(version: tuple[Path, int, int]) -> frozenset[int] | MaskError:
    try:
        return frozenset(np.flatnonzero(np.bincount(MaskFile(version[0]).open().values().reshape(-1))).tolist())
    except MaskError as error:
        return error


def guess_form(root: Path, seen: Mapping[Path, frozenset[int] | MaskError]) -> tuple[MaskForm, Finding | None]:
    """Guess how masks are written, from the values in each: classes from 0 to the largest value.

    Unreadable masks are not considered.

    Returns:
        The form; and a finding if the values are not class numbers: the form is then what was probably meant.
    """
    good = {mask: values for mask, values in seen.items() if not isinstance(values, MaskError)}
    every = frozenset[int]().union(*good.values())
    classes = sorted(every - {IGNORE})
    if classes == [0] and IGNORE in every:
        return _only_0_and_255(root, sorted(good))
    count = max([1, *classes]) + 1
    unused = count - len(classes)
    if unused >= GAP and unused > len(classes):
        return _values_far_apart(root, classes, good)
    return MaskForm(LabelSet.numbered(count)), None


def _only_0_and_255(root: Path, masks: Iterable[Path]) -> tuple[MaskForm, Finding]:
    form = MaskForm(LabelSet(("background", "foreground")), values=(0, IGNORE))
    return form, Finding(
        FindingKind.BINARY_MASK,
        "error",
        f"the masks in {root / 'masks'} contain only 0 and {IGNORE}, but {IGNORE} is ignored everywhere, so there is "
        "nothing to learn",
        f"a value of its own for each class, {IGNORE} only for pixels to ignore",
        f"declare in {root / 'labels.toml'} that {IGNORE} is a class:\n" + _indented(toml_of(form)),
        tuple(Item(str(mask)) for mask in masks),
    )


def _values_far_apart(root: Path, classes: list[int], seen: Mapping[Path, frozenset[int]]) -> tuple[MaskForm, Finding]:
    names = ("background", "foreground") if len(classes) == 2 else tuple(f"value {value}" for value in classes)
    form = MaskForm(LabelSet(names), values=tuple(classes))
    shown = ", ".join(map(str, classes[:12])) + (", …" if len(classes) > 12 else "")
    far = {value for place, value in enumerate(classes) if value != place}
    return form, Finding(
        FindingKind.BINARY_MASK if len(classes) == 2 else FindingKind.VALUES_FAR_APART,
        "error",
        f"the masks in {root / 'masks'} contain the values {shown}; read as class numbers they would make "
        f"{classes[-1] + 1} classes, of which {number(len(classes), 'occurs', 'occur')}",
        "classes numbered 0, 1, 2, …, or a labels.toml that declares what the values mean",
        f"write {root / 'labels.toml'}, with names of your own:\n" + _indented(toml_of(form)),
        tuple(
            Item(str(mask), f"values {', '.join(map(str, sorted(values)))}")
            for mask, values in seen.items()
            if values & far
        ),
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
