"""From complaints to findings: how bad each is, what was expected, and the command or line that mends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from atrous.data.doctor.inspect import MaskFacts
from atrous.data.doctor.list_rules import how_to_fix
from atrous.data.doctor.pair_rules import Facts, color_form, complaints, drawn_upright, foreground, nothing_but_void
from atrous.data.files.masks import MaskForm
from atrous.data.findings import Finding, Item, Severity, number
from atrous.data.sources.base import DatasetSource
from atrous.labels import IGNORE, VOID_COLOR


class _Kind(NamedTuple):
    severity: Severity
    one: str
    many: str
    expected: str


_KINDS = {
    "unreadable-image": _Kind("error", "image can't be read", "images can't be read", "whole images that open"),
    "unreadable-mask": _Kind("error", "mask can't be read", "masks can't be read", "whole files that open"),
    "jpeg-mask": _Kind(
        "error",
        "mask is a JPEG, which changes values along every edge",
        "masks are JPEGs, which changes values along every edge",
        "lossless PNG masks",
    ),
    "rgb-mask": _Kind(
        "error",
        "mask is a coloured image",
        "masks are coloured images",
        "palette or grey images whose values are the classes",
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
        "image and its mask differ in size",
        "images and their masks differ in size",
        "one size for both",
    ),
    "turned-mask": _Kind(
        "error",
        "image is turned by EXIF, and its mask was drawn on it the other way",
        "images are turned by EXIF, and their masks were drawn on them the other way",
        "masks drawn on the image as it is shown, upright, or one word in labels.toml that says otherwise",
    ),
    "unclear-orientation": _Kind(
        "error",
        "image is turned by EXIF in a way that sizes don't show, so its mask may be upright or not",
        "images are turned by EXIF in a way that sizes don't show, so their masks may be upright or not",
        "a word in labels.toml on what masks were drawn on",
    ),
    "turned-image": _Kind(
        "note",
        "image is turned by EXIF, and its mask goes with it",
        "images are turned by EXIF, and their masks go with them",
        "just that: images are read upright",
    ),
    "image-note": _Kind(
        "note", "image is read with a remark", "images are read with a remark", "ordinary images of 8 bits"
    ),
}


def is_error(kind: str) -> bool:
    """Whether a complaint of this kind makes a pair unusable."""
    return _KINDS[kind].severity == "error"


def findings_about(source: DatasetSource, form: MaskForm, facts: Facts) -> list[Finding]:
    """What is wrong with pairs, one finding a kind."""
    items: dict[str, dict[Item, None]] = {kind: {} for kind in _KINDS}
    for pair, seen in facts.items():
        for complaint in complaints(pair, seen, form):
            items[complaint.kind][complaint.item] = None
    findings = []
    for kind, (severity, one, many, expected) in _KINDS.items():
        if items[kind]:
            found, mend = number(len(items[kind]), one, many), _mend(kind, source, form, facts)
            findings.append(Finding(kind, severity, found, expected, mend, tuple(items[kind])))
    return [_escalated(finding, source, form, facts) for finding in findings]


def _mend(kind: str, source: DatasetSource, form: MaskForm, facts: Facts) -> str:
    fix, masks = how_to_fix(source), [seen.mask for seen in facts.values() if isinstance(seen.mask, MaskFacts)]
    toml = str(source.labels_file or "")
    match kind:
        case "jpeg-mask":
            return (
                "export them again as PNG where they were drawn (what JPEG lost can't be guessed with certainty); "
                f"{fix} leaves them out"
            )
        case "rgb-mask":
            return _mend_colors(toml, form, [mask for mask in masks if not mask.is_jpeg], fix)
        case "binary-mask":
            return _mend_binary(toml, form, masks, fix)
        case "void-for-class":
            return "write the class's number in place of 255; nothing, if 255 is meant as void"
        case "outside-classes":
            line = f", or in {toml} name more classes, or say ignore = [...] to leave these out" if toml else ""
            return f"draw these pixels anew{line}; {fix} leaves the images out"
        case "all-void":
            return f"draw them, or take the images out of their lists; {fix} leaves them out"
        case "size-mismatch":
            return f"export the masks at the size of their images, without smoothing; {fix} leaves the images out"
        case "turned-mask":
            other = "upright" if form.orientation == "stored" else "stored"
            line = f' (if all masks were drawn so, a line in {toml} does it: orientation = "{other}")' if toml else ""
            return f"{fix} turns them{line}"
        case "unclear-orientation":
            return _mend_unclear(toml, facts, fix)
        case "turned-image":
            return f"nothing; for programs that ignore EXIF, {fix} writes upright pixels"
        case "image-note":
            return "nothing, or export them as ordinary JPEG or PNG"
    return f"copy or export them again; {fix} leaves them out"


def _mend_colors(toml: str, form: MaskForm, masks: Sequence[MaskFacts], fix: str) -> str:
    coloured = [mask for mask in masks if mask.coloured]
    if any(mask.colors is None for mask in coloured):  # only their headers were read
        return f"{fix} writes those of known colours as values; without --fix it says what the colours are"
    certain = [color_form(mask, form) for mask in coloured]
    if toml and len(coloured) == len(masks) and not all(certain):
        found = sorted({color for mask in coloured for color in mask.colors or ()} - {VOID_COLOR})
        if 0 < len(found) < IGNORE:
            names = [f"color {place}" for place in range(len(found))]
            return (
                f"say in {toml} what the colours mean, each with a name of your own (void under ignore):\n"
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
    if len(form.label_set) > 2:
        return (
            f"write the class's number in place of {' and '.join(map(str, there))} (which of the "
            f"{len(form.label_set)} classes it is, only you know); {fix} leaves them out"
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


def _escalated(finding: Finding, source: DatasetSource, form: MaskForm, facts: Facts) -> Finding:
    """Masks of 0 and 255 are an error where there is nothing else to learn from."""
    if finding.kind != "void-for-class":
        return finding
    if not nothing_but_void(form, facts):
        return replace(finding, kind="binary-mask")
    if source.labels_file and len(form.label_set) == 2:
        mend = f"say in {source.labels_file} that 255 is a class: values = [0, 255] (if it is void: values = [0, 1])"
        return replace(finding, kind="binary-mask", severity="error", mend=mend)
    return replace(finding, kind="binary-mask", severity="error")
