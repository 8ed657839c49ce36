"""Palettes of masks whose colours are in another order than the classes."""

from __future__ import annotations

from collections.abc import Mapping

from atrous.data.files.mask_form import MaskForm
from atrous.labels import IGNORE, Color


def resorted(palette: Mapping[int, Color], form: MaskForm) -> MaskForm | None:
    """How to read a palette mask by its colours, if its palette is not in the order of the classes.

    GIF, and programs that make PNGs smaller, number the colours of each file anew: classes 0, 2 and 5 become values 0,
    1 and 2, and their colours stay. That is certain if every colour is that of a class (or its value as a grey), and
    some value is not that of its colour's class.

    Args:
        palette: the colour of each value that occurs in the mask.
        form: how index masks of the dataset are written.
    """
    if form.encoding == "rgb" or form.label_set.ignore != IGNORE or len(set(palette.values())) < len(palette):
        return None
    known = form.known_colors and len(set(form.label_set.colors)) == len(form.label_set)
    if known and (moved := _moved(palette, form, form.by_color())):
        return form.by_color()
    moved = _moved(palette, form, form.by_grey())
    return form.by_grey() if any(label != IGNORE for label in moved.values()) else None  # white is the usual class 1


def _moved(palette: Mapping[int, Color], form: MaskForm, colors: MaskForm) -> dict[int, int]:
    """The values whose colour is that of another label, which is given; empty if not all colours are known."""
    labels, meanings = colors.colors_on_disk(), form.values_on_disk()
    if not all(color in labels for color in palette.values()):
        return {}
    pairs = ((value, labels[color]) for value, color in palette.items() if value != IGNORE)
    return {value: label for value, label in pairs if label != meanings.get(value)}


def describe_sorted(palette: Mapping[int, Color], form: MaskForm, colors: MaskForm) -> str:
    """What shows that a palette is not in the order of the classes, as :func:`resorted` found."""
    value, label = next(iter(_moved(palette, form, colors).items()))
    whose = "ignored pixels" if label == IGNORE else f"class {label} ({form.label_set.names[label]})"
    return f"its palette gives value {value} the colour of {whose}: the order of its colours is not that of the classes"
