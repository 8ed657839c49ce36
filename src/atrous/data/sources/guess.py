"""How the masks of a folder are probably written, where no ``labels.toml`` declares it: from what is in them."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.pillow import open_with_pillow
from atrous.data.files.smeared import APART, safe_tolerance
from atrous.data.files.threads import read_all
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, number
from atrous.data.sources.labels_toml import toml_of
from atrous.data.sources.seen_masks import NO_VOID, Seen, SeenMask, Void, every_value, masks_seen
from atrous.errors import DatasetError
from atrous.labels import IGNORE, VOID_COLOR, Color, LabelSet, voc_color

GAP = 8
"""Without ``labels.toml``, values are not class numbers if this many below the largest, and most, are unused."""
LARGE_SHARE = 0.1
"""From this share of all pixels on, regions of 255 are remarkable even beside proper class numbers."""
MANY_OBJECTS = 8
"""Masks that number their contents from 1 on are remarkable if one of them has so many numbers."""


def palettes_disagree(palettes: Iterable[Mapping[int, Color]]) -> bool:
    """Whether palette masks number the same colours differently: one value has two colours, and one colour two values.

    Values and colours of programs that give each file any colours at all would not meet again.
    """
    colors: dict[int, set[Color]] = {}
    values: dict[Color, set[int]] = {}
    for palette in palettes:
        if len(set(palette.values())) < len(palette):
            continue
        for value, color in palette.items():
            colors.setdefault(value, set()).add(color)
            values.setdefault(color, set()).add(value)
    return any(len(each) > 1 for each in colors.values()) and any(len(each) > 1 for each in values.values())


def refuse_sorted_palettes(file: Path, masks: Sequence[Path]) -> None:
    """Refuse palette masks that number the same colours differently, where a ``labels.toml`` names no colours.

    Headers decide where they are alike, as nearly everywhere; otherwise the values that occur do.

    Raises:
        DatasetError: they do; the message shows what to declare.
    """
    tables = {mask: table for mask, table in zip(masks, read_all(_header_palette, masks), strict=True) if table}
    longest = max(tables.values(), key=len, default=b"")
    if all(longest.startswith(table) for table in set(tables.values())):  # one value never has two colours
        return
    seen = [mask for mask in masks_seen(list(tables)).values() if isinstance(mask, SeenMask)]
    palettes = [dict(mask.palette) for mask in seen]
    if not palettes_disagree(palettes):
        return
    found = sorted({color for palette in palettes for color in palette.values()} - {VOID_COLOR})
    raise DatasetError(
        f"{file}: the palettes of the {len(palettes):,} palette masks have the same colours in another order in each "
        f"file, so that one value is another class in each, and {file.name} does not say whose the colours are; "
        f"{declare_colors(str(file), found)}"
    )


def declare_colors(toml: str, colors: Sequence[Color]) -> str:
    """What to do where only colours tell the classes of masks apart."""
    names = [f"color {place}" for place in range(len(colors))]
    return (
        f"declare in {toml} what the colours mean, each with a name of your own (void under ignore):\n"
        f"    names = {json.dumps(names)}\n    colors = {[list(color) for color in colors]}\n"
        '    encoding = "rgb"'
    )


def _header_palette(mask: Path) -> bytes:
    try:
        status = mask.stat()
        return _read_palette((mask, status.st_mtime_ns, status.st_size))
    except Exception:  # a damaged header raises nearly anything; reading the mask says what is wrong with it
        return b""


@functools.cache
def _read_palette(version: tuple[Path, int, int]) -> bytes:
    """The colours of a palette mask as its header has them; empty for others."""
    with open_with_pillow(version[0]) as image:
        return bytes(image.getpalette("RGB") or []) if image.mode == "P" else b""


def guess_form(root: Path, seen: Seen) -> tuple[MaskForm, Finding | None]:
    """Guess how masks are written, from the values in each: classes from 0 to the largest value.

    Unreadable masks are not considered.

    Returns:
        The form; and a finding if that is not certain: an error if the values are not class numbers, and the form is
        then what was probably meant.
    """
    good = {path: mask for path, mask in seen.items() if isinstance(mask, SeenMask)}
    palettes = [dict(mask.palette) for mask in good.values() if mask.palette]
    if palettes_disagree(palettes):
        return _by_colors(root, good, palettes)
    if 2 * sum(bool(mask.peaks) for mask in good.values()) > len(good):
        return _smeared(root, good)
    values = {path: mask.values for path, mask in good.items()}
    void = sum((mask.void for mask in good.values()), NO_VOID)
    if _are_black_and_white(good):
        values = {path: _as_shown(mask) for path, mask in good.items()}
    every = frozenset[int]().union(*values.values())
    classes = sorted(every - {IGNORE})
    if classes == [0] and IGNORE in every:
        return _only_0_and_255(root, sorted(values))
    count = max([1, *classes]) + 1
    unused = count - len(classes)
    if unused >= GAP and unused > len(classes):
        return _values_far_apart(root, classes, values, void)
    form = MaskForm(LabelSet.numbered(count))
    if _number_objects(values.values()):
        return form, _numbered_objects(root, values)
    large = void.is_regions and void.in_regions > LARGE_SHARE * void.total
    return form, _large_void(root, count, good, void) if large else None


def _smeared(root: Path, masks: Mapping[Path, SeenMask]) -> tuple[MaskForm, Finding]:
    peaks = sorted(frozenset[int]().union(*(mask.peaks for mask in masks.values())))
    drawn = [value for place, value in enumerate(peaks) if not place or value - peaks[place - 1] >= APART]
    form = _of_values(drawn if len(drawn) > 1 else [*drawn, 0 if drawn[0] > IGNORE // 2 else IGNORE])
    labels = root / "labels.toml"
    return form, Finding(
        FindingKind.LOSSY_MASK,
        "error",
        f"the masks in {root} have {len(every_value(masks))} values, of which most pixels have "
        f"{' or '.join(map(str, drawn))}: they were saved as JPEG once, which smears values along every edge",
        "lossless PNG masks",
        f"export them again as PNG where they were drawn; or write {labels}, with names of your own:\n"
        f"{indented(toml_of(form))}\nand let `atrous data check folder:{shlex.quote(str(root))} --fix NEW_FOLDER "
        f"--tolerance {safe_tolerance(form)}` take the nearest of these values, which is never exact",
        tuple(Item(str(path)) for path, mask in masks.items() if mask.values - set(drawn)),
    )


def _number_objects(values: Collection[frozenset[int]]) -> bool:
    """Whether each mask has the numbers from 1 on, as many as its own objects are."""
    numbers = [len(each - {0, IGNORE}) for each in values]
    counted = all(each - {0, IGNORE} == set(range(1, 1 + n)) for each, n in zip(values, numbers, strict=True))
    return counted and len(set(numbers)) > 1 and max(numbers) >= MANY_OBJECTS


def _numbered_objects(root: Path, masks: Mapping[Path, frozenset[int]]) -> Finding:
    declared = 'names = ["background", "object"]\nencoding = "objects"'
    return Finding(
        FindingKind.NUMBERED_OBJECTS,
        "warning",
        f"the masks in {root} have the values from 1 on, each up to another one: read as class numbers they "
        f"make {max(map(max, masks.values())) + 1} classes, and probably they number objects",
        "the number of a class for each pixel",
        f"write {root / 'labels.toml'}, with a name of your own, if they number objects:\n{indented(declared)}\n"
        "nothing, if these are classes",
        tuple(Item(str(path), f"values up to {max(values)}") for path, values in masks.items() if max(values)),
    )


def _are_black_and_white(masks: Mapping[Path, SeenMask]) -> bool:
    """Whether masks of 1 bit are among masks of 0 and 255, of which programs that make PNGs smaller made them."""
    deep = frozenset[int]().union(*(mask.values for mask in masks.values() if mask.levels == IGNORE))
    return IGNORE in deep <= {0, IGNORE} and any(mask.levels == 1 for mask in masks.values())


def _as_shown(mask: SeenMask) -> frozenset[int]:
    return frozenset(value * IGNORE // mask.levels for value in mask.values) if mask.levels == 1 else mask.values


def _by_colors(
    root: Path, masks: Mapping[Path, SeenMask], palettes: Sequence[Mapping[int, Color]]
) -> tuple[MaskForm, Finding]:
    colors = sorted({color for palette in palettes for color in palette.values()} - {VOID_COLOR})
    usual = {voc_color(label): label for label in range(IGNORE)}
    if usual.keys() >= set(colors):  # the classes are known by VOC's colours
        form = MaskForm(LabelSet.numbered(max(usual[color] for color in [*colors, voc_color(1)]) + 1), "rgb")
    else:
        names = tuple(f"color {place}" for place in range(len(colors)))
        form = MaskForm(LabelSet(names, tuple(colors)) if len(colors) > 1 else LabelSet.numbered(2), "rgb")
    text = f"names = {json.dumps(form.label_set.names)}\ncolors = {json.dumps(form.label_set.colors)}\n"
    return form, Finding(
        FindingKind.PALETTE_ORDER,
        "error",
        f"the palettes of the masks in {root} have the same colours in another order in each file, so that "
        "one value is another class in each; they were sorted anew when they were saved, as GIF and programs that make "
        "PNGs smaller do",
        "masks whose values are the classes, or a labels.toml that says that their colours are",
        f"write {root / 'labels.toml'}, with names of your own:\n" + indented(f'{text}encoding = "rgb"'),
        tuple(Item(str(path)) for path, mask in masks.items() if mask.palette),
    )


def _only_0_and_255(root: Path, masks: Iterable[Path]) -> tuple[MaskForm, Finding]:
    form = MaskForm(LabelSet(("background", "foreground")), values=(0, IGNORE))
    return form, Finding(
        FindingKind.BINARY_MASK,
        "error",
        f"the masks in {root} contain only 0 and {IGNORE}, but {IGNORE} is ignored everywhere, so there is "
        "nothing to learn",
        f"a value of its own for each class, {IGNORE} only for pixels to ignore",
        f"declare in {root / 'labels.toml'} that {IGNORE} is a class:\n" + indented(toml_of(form)),
        tuple(Item(str(mask)) for mask in masks),
    )


def _values_far_apart(
    root: Path, classes: list[int], seen: Mapping[Path, frozenset[int]], void: Void
) -> tuple[MaskForm, Finding]:
    form = _of_values(classes)
    fix = f"write {root / 'labels.toml'}, with names of your own:\n"
    asked = ""
    if void.pixels:
        without, form = form, _of_values([*classes, IGNORE])
        fix += (
            f"{indented(toml_of(form))}\nif {IGNORE} is a class, or to ignore its pixels\n{indented(toml_of(without))}"
        )
        asked = f"; {IGNORE} may be a class or mark ignored pixels: it is {void}"
        form = form if void.is_regions else without
    else:
        fix += indented(toml_of(form))
    shown = ", ".join(map(str, classes[:12])) + (", …" if len(classes) > 12 else "")
    far = {value for place, value in enumerate(classes) if value != place}
    kind = FindingKind.BINARY_MASK if len(classes) == 2 else FindingKind.VALUES_FAR_APART
    return form, Finding(
        FindingKind.UNCLEAR_255 if void.may_be_a_class else kind,
        "error",
        f"the masks in {root} contain the values {shown}; read as class numbers they would make "
        f"{classes[-1] + 1} classes, of which {number(len(classes), 'occurs', 'occur')}{asked}",
        "classes numbered 0, 1, 2, …, or a labels.toml that declares what the values mean",
        fix,
        tuple(
            Item(str(mask), f"values {', '.join(map(str, sorted(values)))}")
            for mask, values in seen.items()
            if values & far
        ),
    )


def _of_values(values: Sequence[int]) -> MaskForm:
    names = ("background", "foreground") if len(values) == 2 else tuple(f"value {value}" for value in values)
    return MaskForm(LabelSet(names), values=tuple(values))


def _large_void(root: Path, count: int, masks: Mapping[Path, SeenMask], void: Void) -> Finding:
    declared = _of_values([*range(count), IGNORE])
    return Finding(
        FindingKind.UNCLEAR_255,
        "warning",
        f"the masks in {root} contain {IGNORE} in large regions: it is {void}",
        f"{IGNORE} only for pixels to ignore",
        f"nothing, if it marks ignored pixels; if it is a class, write {root / 'labels.toml'}, with your own names:\n"
        + indented(toml_of(declared)),
        tuple(Item(str(path)) for path, mask in masks.items() if mask.void.in_regions),
    )


def indented(text: str) -> str:
    """The lines of a text, each behind four spaces."""
    return "\n".join(f"    {line}" for line in text.splitlines())
