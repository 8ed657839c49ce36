"""From facts about pairs to findings: each way a pair can be wrong, what was expected, and the line that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from atrous.data.facts import MOST_COLORS, MaskFacts, PairFacts, PhotoFacts
from atrous.data.findings import Finding, Item, Severity, number
from atrous.data.forms import GAP
from atrous.data.layouts import Layout, Listed
from atrous.data.listing import how_to_fix
from atrous.data.masks import MaskForm
from atrous.data.orientation import agreement, shown
from atrous.labels import IGNORE, LabelSet

K = TypeVar("K")
Facts = Mapping[Listed, PairFacts]
CLEAR = 1.5
"""From this ratio on (or its inverse), outlines tell how a mask was drawn: on the 350 pictures of VOC's val, turned by
180° or mirrored, it told in 70 % of 1,050 cases and was never wrong."""


class Complaint(NamedTuple):
    """What is wrong with a pair: the kind of finding, and the file."""

    kind: str
    item: Item


def complaints(pair: Listed, facts: PairFacts, form: MaskForm) -> Iterator[Complaint]:
    """Everything that is wrong with one pair, or worth knowing."""
    photo, mask = facts.photo, facts.mask
    if isinstance(photo, str):
        yield Complaint("unreadable-photo", Item(str(pair.photo), photo))
    else:
        for note in photo.notes:
            yield Complaint("photo-note", Item(str(pair.photo), note))
    if isinstance(mask, str):
        yield Complaint("unreadable-mask", Item(str(pair.mask), mask))
        return
    yield from _mask_complaints(pair, mask, form)
    if not isinstance(photo, str):
        yield from _fit_complaints(pair, photo, mask, facts.upright_fit, form)


def _mask_complaints(pair: Listed, mask: MaskFacts, form: MaskForm) -> Iterator[Complaint]:
    file = str(pair.mask)
    if mask.is_jpeg:
        yield Complaint("jpeg-mask", Item(file, f"a JPEG ({mask.mode})"))
    elif mask.problem:
        yield Complaint("outside-classes", Item(file, mask.problem))
    elif mask.coloured and form.encoding == "index":
        yield Complaint("rgb-mask", Item(file, _describe_colors(mask, form)))
    elif mask.colors is not None:
        known = form.colors_on_disk()
        if outside := [
            f"{list(color)} in {count} pixels" for color, count in mask.colors.items() if color not in known
        ]:
            yield Complaint("outside-classes", Item(file, f"{number(len(outside), 'colour')}: {_first(outside)}"))
    elif mask.values is not None:
        if (value := foreground(mask, form)) is not None:
            listed = " and ".join(map(str, mask.values))
            yield Complaint("void-for-class" if value == IGNORE else "binary-mask", Item(file, f"only {listed}"))
        elif strangers := [value for value in mask.values if value not in form.values_on_disk()]:
            outside = [f"value {value} in {mask.values[value]} pixels" for value in strangers]
            yield Complaint("outside-classes", Item(file, _first(outside)))
    counts = label_counts(mask, form)
    if counts is not None and not counts[:IGNORE].any():
        yield Complaint("all-void", Item(file))


def _first(things: Sequence[str]) -> str:
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(things[:3]) + more


def _fit_complaints(
    pair: Listed, photo: PhotoFacts, mask: MaskFacts, upright_fit: float | None, form: MaskForm
) -> Iterator[Complaint]:
    found = agreement(mask.size, photo.size, photo.orientation, form.orientation)
    sizes = f"{shown(photo.size)}, its mask {pair.mask} {shown(mask.size)}"
    if found == "other size":
        turned = "; one of the two is turned" if mask.size == photo.size[::-1] else ""
        yield Complaint("size-mismatch", Item(str(pair.photo), sizes + turned))
    elif found == "drawn otherwise":
        drawn = "as it is shown" if mask.size == photo.size else "as its pixels are stored"
        yield Complaint("turned-mask", Item(str(pair.photo), f"{sizes}: drawn on the photo {drawn}"))
    elif found == "unclear":
        yield Complaint("unclear-orientation", Item(str(pair.photo), _evidence(photo, upright_fit)))
    elif photo.orientation != 1:
        fits = "upright as the photo is shown" if found == "fits" else "turned with its photo"
        yield Complaint("turned-photo", Item(str(pair.photo), f"EXIF orientation {photo.orientation}; mask {fits}"))


def _evidence(photo: PhotoFacts, upright_fit: float | None) -> str:
    exif = f"EXIF orientation {photo.orientation}"
    drawn = drawn_upright(upright_fit)
    if upright_fit is None or drawn is None:
        return f"{exif}; the mask's outlines do not tell"
    return f"{exif}; the mask's outlines fit the photo as it is {'shown' if drawn else 'stored'}"


def drawn_upright(upright_fit: float | None) -> bool | None:
    """Whether outlines tell that a mask was drawn upright (or was not); None if they don't tell."""
    if upright_fit is None or 1 / CLEAR < upright_fit < CLEAR:
        return None
    return upright_fit > 1


def foreground(mask: MaskFacts, form: MaskForm) -> int | None:
    """The value of a mask of two values far apart, 0 and 255 or 0 and 128, that probably stands for a class."""
    if mask.values is None or form.values or len(form.labels) < 2:
        return None
    meanings = form.values_on_disk()
    strangers = [value for value in mask.values if value not in meanings]
    others = set(mask.values) - set(strangers) - {IGNORE}
    if not others <= {0}:
        return None
    if strangers:
        return strangers[0] if len(strangers) == 1 and strangers[0] >= len(form.labels) + GAP else None
    return IGNORE if set(mask.values) == {0, IGNORE} and IGNORE not in form.ignore else None


def color_form(mask: MaskFacts, form: MaskForm) -> MaskForm | None:
    """How a coloured mask is written, if that is certain: in the colours of its classes, or their values as greys."""
    grey = {value: (value, value, value) for value in range(256)}
    if mask.colors is None or not mask.opaque or len(mask.colors) == MOST_COLORS:
        return None
    if mask.colors.keys() == {grey[0], grey[IGNORE]} and not form.values:  # white may be void, or a class
        return None
    values = form.values or range(len(form.labels))
    greys = LabelSet(form.labels.names, tuple(grey[value] for value in values))
    void = tuple(grey[value] for value, label in form.values_on_disk().items() if label == IGNORE)
    colors = replace(form, encoding="rgb", values=())
    return next(
        (f for f in (colors, replace(colors, labels=greys, ignore=void)) if label_counts(mask, f) is not None), None
    )


def nothing_but_void(form: MaskForm, facts: Facts) -> bool:
    """Whether some masks hold 0 and 255, and none holds a class but the first."""
    masks = [seen.mask for seen in facts.values() if isinstance(seen.mask, MaskFacts)]
    counts = [label_counts(mask, form) for mask in masks]
    learnt = any(count is not None and count[1:IGNORE].any() for count in counts)
    return not learnt and any(foreground(mask, form) == IGNORE for mask in masks)


def label_counts(mask: MaskFacts, form: MaskForm) -> NDArray[np.int64] | None:
    """The pixels ``(256,)`` of each label, ignored ones at 255; None if the mask can't be read in this form."""
    if form.encoding == "rgb":
        return _by_label(mask.colors, form.colors_on_disk())
    return _by_label(mask.values, form.values_on_disk())


def _by_label(on_disk: Mapping[K, int] | None, meanings: Mapping[K, int]) -> NDArray[np.int64] | None:
    if on_disk is None or any(key not in meanings for key in on_disk):
        return None
    counts = np.zeros(256, np.int64)
    for key, pixels in on_disk.items():
        counts[meanings[key]] += pixels
    return counts


def _describe_colors(mask: MaskFacts, form: MaskForm) -> str:
    if mask.colors is None:
        return mask.mode
    many = "many" if len(mask.colors) == MOST_COLORS else str(len(mask.colors))
    if known := color_form(mask, form):
        whose = "the classes' own" if known.labels == form.labels else "the values of classes, as greys"
        return f"{mask.mode}, {many} colours, {whose}"
    strangers = [list(color) for color in mask.colors if color not in form.colors_on_disk()]
    return f"{mask.mode}, {many} colours, " + ("some transparent" if not strangers else f"{strangers[0]} is no class's")


class _Kind(NamedTuple):
    severity: Severity
    one: str
    many: str
    expected: str


_KINDS = {
    "unreadable-photo": _Kind("error", "photo can't be read", "photos can't be read", "whole pictures that open"),
    "unreadable-mask": _Kind("error", "mask can't be read", "masks can't be read", "whole PNG pictures"),
    "jpeg-mask": _Kind(
        "error",
        "mask is a JPEG, which changes values along every edge",
        "masks are JPEGs, which changes values along every edge",
        "lossless PNG masks",
    ),
    "rgb-mask": _Kind(
        "error",
        "mask is a coloured picture",
        "masks are coloured pictures",
        "palette or grey pictures whose values are the classes",
    ),
    "binary-mask": _Kind(
        "error",
        "mask has two values far apart",
        "masks have two values far apart",
        "the number of a class for each pixel",
    ),
    "void-for-class": _Kind(
        "warning",
        "mask holds only 0 and 255, which is background and pixels that nobody judges",
        "masks hold only 0 and 255, which is background and pixels that nobody judges",
        "the number of a class where something is to be found",
    ),
    "outside-classes": _Kind(
        "error",
        "mask holds what belongs to no class",
        "masks hold what belongs to no class",
        "nothing but the classes and void",
    ),
    "all-void": _Kind(
        "warning",
        "mask has no pixel that is judged",
        "masks have no pixel that is judged",
        "pixels of some class in each",
    ),
    "size-mismatch": _Kind(
        "error",
        "photo and its mask differ in size",
        "photos and their masks differ in size",
        "one size for both",
    ),
    "turned-mask": _Kind(
        "error",
        "photo is turned by EXIF, and its mask was drawn on it the other way",
        "photos are turned by EXIF, and their masks were drawn on them the other way",
        "masks drawn on the photo as it is shown, upright, or one word in labels.toml that says otherwise",
    ),
    "unclear-orientation": _Kind(
        "error",
        "photo is turned by EXIF in a way that sizes don't show, so its mask may be upright or not",
        "photos are turned by EXIF in a way that sizes don't show, so their masks may be upright or not",
        "a word in labels.toml on what masks were drawn on",
    ),
    "turned-photo": _Kind(
        "note",
        "photo is turned by EXIF, and its mask goes with it",
        "photos are turned by EXIF, and their masks go with them",
        "just that: photos are read upright",
    ),
    "photo-note": _Kind("note", "photo is special", "photos are special", "ordinary photos of 8 bits"),
}


def is_error(kind: str) -> bool:
    """Whether a complaint of this kind makes a pair unusable."""
    return _KINDS[kind].severity == "error"


def findings_about(layout: Layout, form: MaskForm, facts: Facts) -> list[Finding]:
    """What is wrong with pairs, one finding a kind."""
    items: dict[str, dict[Item, None]] = {kind: {} for kind in _KINDS}
    for pair, seen in facts.items():
        for complaint in complaints(pair, seen, form):
            items[complaint.kind][complaint.item] = None
    findings = []
    for kind, (severity, one, many, expected) in _KINDS.items():
        if items[kind]:
            found, mend = number(len(items[kind]), one, many), _mend(kind, layout, form, facts)
            findings.append(Finding(kind, severity, found, expected, mend, tuple(items[kind])))
    return [_escalated(finding, layout, form, facts) for finding in findings]


def _mend(kind: str, layout: Layout, form: MaskForm, facts: Facts) -> str:
    fix, masks = how_to_fix(layout), [seen.mask for seen in facts.values() if isinstance(seen.mask, MaskFacts)]
    toml = str(layout.labels_file or "")
    match kind:
        case "jpeg-mask":
            return (
                "export them again as PNG where they were drawn (what JPEG lost can't be guessed with certainty); "
                f"{fix} leaves them out"
            )
        case "rgb-mask":
            return _mend_colors(toml, form, [mask for mask in masks if mask.coloured], len(masks), fix)
        case "binary-mask":
            return _mend_binary(toml, form, masks, fix)
        case "void-for-class":
            return "write the class's number in place of 255; nothing, if 255 is meant as void"
        case "outside-classes":
            line = f", or in {toml} name more classes, or say ignore = [...] to leave these out" if toml else ""
            return f"draw these pixels anew{line}; {fix} leaves the pictures out"
        case "all-void":
            return f"draw them, or take the pictures out of their lists; {fix} leaves them out"
        case "size-mismatch":
            return f"export the masks at the size of their photos, without smoothing; {fix} leaves the pictures out"
        case "turned-mask":
            other = "upright" if form.orientation == "stored" else "stored"
            line = f' (if all masks were drawn so, a line in {toml} does it: orientation = "{other}")' if toml else ""
            return f"{fix} turns them{line}"
        case "unclear-orientation":
            return _mend_unclear(toml, facts, fix)
        case "turned-photo":
            return f"nothing; for programs that ignore EXIF, {fix} writes upright pixels"
        case "photo-note":
            return "look at them: `atrous data stats` draws photos as they are read"
    return f"copy or export them again; {fix} leaves them out"


def _mend_colors(toml: str, form: MaskForm, coloured: Sequence[MaskFacts], total: int, fix: str) -> str:
    certain = [color_form(mask, form) for mask in coloured]
    if toml and len(coloured) == total and not all(certain):
        found = sorted({color for mask in coloured for color in mask.colors or ()})
        if 0 < len(found) < IGNORE:
            same = len(found) == len(form.labels)
            names = list(form.labels.names) if same else [f"color {place}" for place in range(len(found))]
            return (
                f"say in {toml} what the colours mean, with names of your own (void under ignore):\n"
                f"    names = {json.dumps(names)}\n    colors = {[list(color) for color in found]}\n"
                '    encoding = "rgb"'
            )
    could = sum(known is not None for known in certain)
    if could:
        rest = "" if could == len(coloured) else ", and leaves the others out"
        return f"{fix} writes {could} of them as values{rest}"
    return f"export them as palette PNG; {fix} leaves them out"


def _mend_binary(toml: str, form: MaskForm, masks: Sequence[MaskFacts], fix: str) -> str:
    values = [foreground(mask, form) for mask in masks]
    there = sorted({value for value in values if value not in (None, IGNORE)})
    if len(form.labels) > 2:
        return (
            f"write the class's number in place of {' and '.join(map(str, there))} (which of the {len(form.labels)} it "
            f"is, only you know); {fix} leaves them out"
        )
    if toml and len(there) == 1 and all(m.values is not None and set(m.values) <= {0, *there, IGNORE} for m in masks):
        return f"say in {toml} which value is which class: values = [0, {there[0]}]"
    return f"{fix} writes 1 in place of {' and '.join(map(str, there))}"


def _mend_unclear(toml: str, facts: Facts, fix: str) -> str:
    told = [drawn_upright(seen.upright_fit) for seen in facts.values() if seen.upright_fit is not None]
    upright, stored = told.count(True), told.count(False)
    line = f"{fix} turns those whose outlines tell, and leaves the others out"
    if not toml:
        return line
    if upright or stored:
        word = "upright" if upright >= stored else "stored"
        return f'say orientation = "{word}" in {toml} (outlines: {upright} upright, {stored} as stored); or {line}'
    return f'say orientation = "upright" or orientation = "stored" in {toml}; or {line}'


def _escalated(finding: Finding, layout: Layout, form: MaskForm, facts: Facts) -> Finding:
    """Masks of 0 and 255 are an error where there is nothing else to learn from."""
    if finding.kind != "void-for-class":
        return finding
    if not nothing_but_void(form, facts):
        return replace(finding, kind="binary-mask")
    if layout.labels_file and len(form.labels) == 2:
        mend = f"say in {layout.labels_file} that 255 is a class: values = [0, 255] (if it is void: values = [0, 1])"
        return replace(finding, kind="binary-mask", severity="error", mend=mend)
    return replace(finding, kind="binary-mask", severity="error")
