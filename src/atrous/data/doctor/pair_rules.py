"""From facts about pairs to complaints: every way in which an image and its mask can be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from atrous.data.doctor.inspect import MOST_COLORS, ImageFacts, MaskFacts, PairFacts
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.orientation import agreement, shown
from atrous.data.files.palettes import describe_sorted, resorted
from atrous.data.files.smeared import is_smeared
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Item, number
from atrous.data.sources.base import Listed
from atrous.data.sources.guess import GAP, palettes_disagree
from atrous.labels import IGNORE, Color

K = TypeVar("K")
Facts = Mapping[Listed, PairFacts]
CLEAR = 1.5
"""From this ratio on (or its inverse), outlines show how a mask was drawn: on 350 images of VOC, turned by 180° or
mirrored, they did in 70 % of 1,050 cases, and were never wrong.
"""


class Complaint(NamedTuple):
    """One thing that is wrong with a pair: the kind of finding, and the file."""

    kind: FindingKind
    item: Item


def complaints(pair: Listed, facts: PairFacts, form: MaskForm) -> Iterator[Complaint]:
    """Everything that is wrong with one pair, or good to know."""
    image, mask = facts.image, facts.mask
    if isinstance(image, str):
        yield Complaint(FindingKind.UNREADABLE_IMAGE, Item(str(pair.image), image))
    else:
        for note in image.notes:
            kind = FindingKind.PARTIAL_IMAGE if note == image.partial else FindingKind.IMAGE_NOTE
            yield Complaint(kind, Item(str(pair.image), note))
    if isinstance(mask, str):
        yield Complaint(FindingKind.UNREADABLE_MASK, Item(str(pair.mask), mask))
        return
    yield from _mask_complaints(pair, mask, form)
    if not isinstance(image, str):
        yield from _fit_complaints(pair, image, mask, facts.upright_fit, form)


def _mask_complaints(pair: Listed, mask: MaskFacts, form: MaskForm) -> Iterator[Complaint]:
    file = str(pair.mask)
    if mask.lossy:
        yield Complaint(FindingKind.LOSSY_MASK, Item(file, f"{mask.lossy} ({mask.mode})"))
    elif mask.problem:
        yield Complaint(FindingKind.OUTSIDE_CLASSES, Item(file, mask.problem))
    elif is_smeared(_shown_colors(mask), form):
        many = f"{len(_shown_colors(mask))} {'colours' if mask.coloured else 'values'}"
        yield Complaint(FindingKind.LOSSY_MASK, Item(file, f"{many} near those of the classes, as JPEG leaves them"))
    elif mask.coloured and form.encoding == "index":
        yield Complaint(FindingKind.RGB_MASK, Item(file, _describe_colors(mask, form)))
    elif mask.colors is not None:
        known = form.colors_on_disk()
        outside = [f"{list(color)} in {count} pixels" for color, count in mask.colors.items() if color not in known]
        if outside:
            yield Complaint(
                FindingKind.OUTSIDE_CLASSES, Item(file, f"{number(len(outside), 'colour')}: {_first(outside)}")
            )
    elif colors := resorted(mask.palette, form):
        yield Complaint(FindingKind.PALETTE_ORDER, Item(file, describe_sorted(mask.palette, form, colors)))
    elif mask.values is not None:
        if (value := foreground(mask, form)) is not None:
            listed = " and ".join(map(str, mask.values))
            yield Complaint(
                FindingKind.CLASS_IGNORED if value == IGNORE else FindingKind.BINARY_MASK, Item(file, f"only {listed}")
            )
        elif strangers := [value for value in mask.values if value not in form.values_on_disk()]:
            outside = [f"value {value} in {mask.values[value]} pixels" for value in strangers]
            yield Complaint(FindingKind.OUTSIDE_CLASSES, Item(file, _first(outside)))
    counts = label_counts(mask, form)
    if counts is not None and not counts[:-1].any():
        yield Complaint(FindingKind.ALL_IGNORED, Item(file))


def _first(things: Sequence[str]) -> str:
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(things[:3]) + more


def _fit_complaints(
    pair: Listed, image: ImageFacts, mask: MaskFacts, upright_fit: float | None, form: MaskForm
) -> Iterator[Complaint]:
    found = agreement(mask.size, image.size, image.orientation, form.orientation)
    sizes = f"{shown(image.size)}, its mask {pair.mask} {shown(mask.size)}"
    if found == "other size":
        turned = "; one of the two is turned" if mask.size == image.size[::-1] else ""
        yield Complaint(FindingKind.SIZE_MISMATCH, Item(str(pair.image), sizes + turned))
    elif found == "drawn otherwise":
        drawn = "as it is shown" if mask.size == image.size else "as its pixels are stored"
        yield Complaint(FindingKind.TURNED_MASK, Item(str(pair.image), f"{sizes}: drawn on the image {drawn}"))
    elif found == "unclear":
        yield Complaint(FindingKind.UNCLEAR_ORIENTATION, Item(str(pair.image), _evidence(image, upright_fit)))
    elif image.orientation != 1:
        fits = "upright as the image is shown" if found == "fits" else "turned with its image"
        yield Complaint(
            FindingKind.TURNED_IMAGE, Item(str(pair.image), f"EXIF orientation {image.orientation}; mask {fits}")
        )


def _evidence(image: ImageFacts, upright_fit: float | None) -> str:
    exif = f"EXIF orientation {image.orientation}"
    if upright_fit is None:
        return exif
    drawn = drawn_upright(upright_fit)
    fits = "do not show which" if drawn is None else f"fit the image as it is {'shown' if drawn else 'stored'}"
    return f"{exif}; the mask's outlines {fits}"


def drawn_upright(upright_fit: float | None) -> bool | None:
    """Whether outlines show that a mask was drawn upright (or was not); None if they show neither."""
    if upright_fit is None or 1 / CLEAR < upright_fit < CLEAR:
        return None
    return upright_fit > 1


def foreground(mask: MaskFacts, form: MaskForm) -> int | None:
    """The value of a mask of two values far apart, 0 and 255 or 0 and 128, that probably stands for a class."""
    if mask.values is None or form.values or form.label_set.ignore != IGNORE:
        return None
    meanings = form.values_on_disk()
    strangers = [value for value in mask.values if value not in meanings]
    others = set(mask.values) - set(strangers) - {IGNORE}
    if not others <= {0}:
        return None
    if strangers:
        return strangers[0] if len(strangers) == 1 and strangers[0] >= len(form.label_set) + GAP else None
    return IGNORE if set(mask.values) == {0, IGNORE} and IGNORE not in form.ignore else None


def with_known_colors(form: MaskForm, facts: Facts) -> MaskForm:
    """The form, with colours that palettes are compared with if these number the same colours differently.

    That shows the mistake even where nothing declares the colours: every colour is then that of a class by default.
    """
    palettes = [seen.mask.palette for seen in facts.values() if isinstance(seen.mask, MaskFacts)]
    known = form.by_color().colors_on_disk()
    if form.encoding == "rgb" or not all(color in known for palette in palettes for color in palette.values()):
        return form
    return replace(form, known_colors=form.known_colors or palettes_disagree(filter(None, palettes)))


def color_form(mask: MaskFacts, form: MaskForm) -> MaskForm | None:
    """How a coloured mask is written, if that is certain: by the colours of its classes or their values as greys."""
    if mask.colors is None or not mask.opaque or len(mask.colors) == MOST_COLORS:
        return None
    if mask.colors.keys() == {(0, 0, 0), (255, 255, 255)} and not form.values:  # white may be void, or a class
        return None
    return next((form for form in (form.by_color(), form.by_grey()) if label_counts(mask, form) is not None), None)


def nothing_but_void(form: MaskForm, facts: Facts) -> bool:
    """Whether some masks contain 0 and 255, and none contains a class but the first."""
    masks = [seen.mask for seen in facts.values() if isinstance(seen.mask, MaskFacts)]
    counts = [label_counts(mask, form) for mask in masks]
    learned = any(count is not None and count[1:-1].any() for count in counts)
    return not learned and any(foreground(mask, form) == IGNORE for mask in masks)


def label_counts(mask: MaskFacts, form: MaskForm) -> NDArray[np.int64] | None:
    """The pixels of each label, the ignored ones last; None if the mask can't be read in this form."""
    if form.encoding == "rgb":
        return _by_label(_colors_of(mask), form.colors_on_disk(), form.label_set.ignore)
    return _by_label(mask.values, form.values_on_disk(), form.label_set.ignore)


def _colors_of(mask: MaskFacts) -> Mapping[Color, int] | None:
    """The pixels of each colour of a mask, that of its palette if it has one."""
    if mask.colors is not None or mask.values is None or not mask.palette:
        return mask.colors
    counts: dict[Color, int] = {}
    for value, color in mask.palette.items():
        counts[color] = counts.get(color, 0) + mask.values[value]
    return counts


def _by_label(on_disk: Mapping[K, int] | None, meanings: Mapping[K, int], ignore: int) -> NDArray[np.int64] | None:
    if on_disk is None or any(key not in meanings for key in on_disk):
        return None
    counts = np.zeros(ignore + 1, np.int64)
    for key, pixels in on_disk.items():
        counts[meanings[key]] += pixels
    return counts


def _shown_colors(mask: MaskFacts) -> Mapping[Color, int]:
    """The pixels of each colour of a mask without a palette, its values as greys."""
    if mask.colors is not None:
        return mask.colors
    return {} if mask.palette else {(value, value, value): pixels for value, pixels in (mask.values or {}).items()}


def _describe_colors(mask: MaskFacts, form: MaskForm) -> str:
    if mask.colors is None:
        return mask.mode
    many = "many" if len(mask.colors) == MOST_COLORS else str(len(mask.colors))
    if known := color_form(mask, form):
        whose = "the classes' own" if known.label_set == form.label_set else "the values of classes, as greys"
        return f"{mask.mode}, {many} colours, {whose}"
    strangers = [list(color) for color in mask.colors if color not in form.colors_on_disk()]
    return f"{mask.mode}, {many} colours, " + (
        "some transparent" if not strangers else f"{strangers[0]} is not a class's"
    )
