"""How the masks of a folder are written, and what its images contain, as its ``labels.toml`` declares it."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from atrous.data.files.image_form import ImageForm
from atrous.data.files.mask_form import Encoding, MaskForm
from atrous.errors import DatasetError, InputError
from atrous.label_sets import VOC
from atrous.labels import Color, LabelSet

KEYS = ("names", "colors", "encoding", "values", "ignore", "orientation", "divisor", "images")

_IMAGE_KEYS = {"channels": "5", "dtype": '"uint16"', "color": "false"}


def read_form(file: Path) -> MaskForm:
    """Read a ``labels.toml``.

    Raises:
        DatasetError: it can't be read, or its content is invalid.
    """
    try:
        return _form(tomllib.loads(read_text(file)))
    except (OverflowError, RecursionError, TypeError, ValueError) as error:  # TOML's own errors are ValueErrors
        raise DatasetError(
            f'{file}: {error}; expected names = ["background", ...], and if wanted colors = [[r, g, b], ...], '
            'encoding = "index", "rgb" or "objects", values = [the value on disk of each class], ignore = [values, or '
            'colours of RGB masks], orientation = "upright" or "stored", divisor = what class × divisor + object has, '
            'and [images] with channels = 5, dtype = "uint16"'
        ) from error


def read_image_form(file: Path) -> ImageForm | None:
    """What images contain, if a ``labels.toml`` declares it; what is wrong with the file is for :func:`read_form`."""
    try:
        return _image_form(tomllib.loads(read_text(file)).get("images"))
    except (OSError, RecursionError, ValueError):
        return None


def _image_form(table: Any) -> ImageForm | None:
    if table is None:
        return None
    if not isinstance(table, dict) or not table.keys() <= _IMAGE_KEYS.keys():
        expected = ", ".join(f"{key} = {example}" for key, example in _IMAGE_KEYS.items())
        raise InputError(f"[images] is {json.dumps(table)}; expected {expected}")
    if not isinstance(color := table.get("color", False), bool):
        raise InputError(f"color is {color!r}, expected true or false")
    channels, dtype = table.get("channels", 3), table.get("dtype", "uint8")
    return ImageForm(channels, dtype, table.get("color", channels == 3 and dtype == "uint8"))


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
    _image_form(table.get("images"))
    encoding, orientation = table.get("encoding", "index"), table.get("orientation")
    if encoding not in get_args(Encoding):
        raise InputError(f"encoding is {encoding!r}")
    if orientation not in (None, "upright", "stored"):
        raise InputError(f"orientation is {orientation!r}")
    labels = LabelSet.from_dict(dict(table))
    if encoding == "rgb":
        _check_colors(labels, declared="colors" in table)
    largest = labels.ignore
    values = _values(table.get("values", []), labels, encoding)
    divisor = _divisor(table.get("divisor", 0), encoding, labels, values)
    ignore = tuple(_ignored(value, encoding, divisor, largest) for value in table.get("ignore", ()))
    known_colors = "colors" in table and encoding == "index"
    return MaskForm(labels, encoding, values, ignore, orientation, divisor, known_colors)


def with_background(file: Path, values_seen: Collection[int]) -> MaskForm | None:
    """The form that a ``labels.toml`` of one class was probably meant to declare: a background before that class.

    Args:
        file: the ``labels.toml``.
        values_seen: the values that occur in the masks.

    Returns:
        The form; None if it does not name exactly one class, or something else in it is invalid.
    """
    try:
        table = tomllib.loads(read_text(file))
        name = _only(table["names"])
        table["names"] = ["background", "object" if name == "background" else name]
        if "colors" in table:
            table["colors"] = [[0, 0, 0], _only(table["colors"])]
        table["ignore"] = [value for value in table.get("ignore", []) if value not in (0, [0, 0, 0])]
        objects = [_only(table["values"])] if "values" in table else sorted({*values_seen} - {0})
        if len(objects) == 1 and objects != [1]:
            table["values"] = [0, *objects]
        else:
            table.pop("values", None)
        return _form(table)
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None


def _only(values: Any) -> Any:
    (value,) = values
    return value


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
    return tuple(_value(value, "values", label_set.ignore) for value in values)


def _divisor(divisor: Any, encoding: Encoding, label_set: LabelSet, values: tuple[int, ...]) -> int:
    if not isinstance(divisor, int) or divisor < 0:
        raise InputError(f"divisor is {divisor!r}, expected a whole number, such as 1000")
    if divisor and encoding != "objects":
        raise InputError('divisor is for encoding = "objects": class × divisor + object')
    if encoding == "objects" and not divisor and (len(label_set) != 2 or values):
        raise InputError(
            f"{len(label_set)} class names{' with values' * bool(values)}, where masks that number objects have two, "
            'a background and what the objects are: names = ["background", "cell"]; for more they need a divisor'
        )
    return divisor


def _ignored(value: Any, encoding: Encoding, divisor: int, largest: int) -> int | Color:
    if encoding == "rgb":
        if not isinstance(value, list) or len(value) != 3:
            raise InputError(
                f"ignore contains {value!r}, which is not a colour; RGB masks need ignore = [[r, g, b], ...]"
            )
        return value[0], value[1], value[2]
    if encoding == "objects" and not divisor and isinstance(value, int) and value > 0:
        return value
    return _value(value, "ignore", largest)


def _value(value: Any, key: str, largest: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= largest:
        raise InputError(f"{key} contains {value!r}, expected integers from 0 to {largest}")
    return value


def toml_of(form: MaskForm, images: ImageForm | None = None) -> str:
    """Write a form, and what images contain, as the text of a ``labels.toml``: names, and what is not as usual."""
    lines = [f"names = {json.dumps(form.label_set.names, ensure_ascii=False)}"]
    if form.label_set.colors != LabelSet(form.label_set.names).colors:
        lines.append(f"colors = {json.dumps(form.label_set.colors)}")
    lines += [f"values = {json.dumps(form.values)}"] if form.values else []
    lines += [f'orientation = "{form.orientation}"'] if form.orientation else []
    if images and not images.is_rgb:
        color = "true" if images.color else "false"
        lines += ["", "[images]", f"channels = {images.channels}", f'dtype = "{images.dtype}"', f"color = {color}"]
    return "\n".join(lines) + "\n"
