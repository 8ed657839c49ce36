"""From complaints about pairs to findings, with the command or line that fixes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from atrous.data.doctor.inspect import MaskFacts
from atrous.data.doctor.list_rules import repair_command
from atrous.data.doctor.pair_rules import Facts, color_form, complaints, drawn_upright, foreground, nothing_but_void
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.smeared import safe_tolerance
from atrous.data.finding_kinds import FindingKind
from atrous.data.finding_rules import RULES
from atrous.data.findings import Finding, Item, make_finding, with_copy
from atrous.data.sources.base import Described
from atrous.data.sources.guess import declare_colors, palettes_disagree
from atrous.data.sources.seen_masks import NO_VOID
from atrous.labels import IGNORE, VOID_COLOR


class _Context(NamedTuple):
    """What a fix may depend on: the labels.toml there can be, the command for a repaired copy, and the pairs."""

    toml: str
    command: str
    form: MaskForm
    facts: Facts

    @property
    def masks(self) -> list[MaskFacts]:
        return [seen.mask for seen in self.facts.values() if isinstance(seen.mask, MaskFacts)]


def findings_about(data: Described, form: MaskForm, facts: Facts) -> list[Finding]:
    """What is wrong with pairs, one finding per kind."""
    items: dict[FindingKind, dict[Item, None]] = {}
    for pair, seen in facts.items():
        for complaint in complaints(pair, seen, form):
            items.setdefault(complaint.kind, {})[complaint.item] = None
    items |= _disagreeing_palettes(form, facts)
    context = _Context(str(data.labels_file or ""), repair_command(data), form, facts)
    return [_finding(kind, items[kind], context) for kind in RULES if kind in items]


def _disagreeing_palettes(form: MaskForm, facts: Facts) -> dict[FindingKind, dict[Item, None]]:
    """The palette masks, if they number the same colours differently and only they can show which classes these are."""
    if form.encoding == "rgb" or form.known_colors:
        return {}
    masks = {str(pair.mask): seen.mask.palette for pair, seen in facts.items() if isinstance(seen.mask, MaskFacts)}
    palettes = {file: palette for file, palette in masks.items() if palette}
    if not palettes_disagree(palettes.values()):
        return {}
    return {FindingKind.PALETTE_ORDER: {Item(file, "its palette differs from others"): None for file in palettes}}


def _finding(kind: FindingKind, items: dict[Item, None], context: _Context) -> Finding:
    fix = _FIXES[kind](context) if kind in _FIXES else None
    finding = make_finding(kind, items, fix=fix, command=context.command)
    if kind == FindingKind.CLASS_IGNORED and nothing_but_void(context.form, context.facts):
        return _nothing_to_learn(finding, context)
    return finding


def _nothing_to_learn(finding: Finding, context: _Context) -> Finding:
    """Masks of 0 and 255 are an error if no mask has anything else to learn."""
    if context.toml and len(context.form.label_set) == 2:
        fix = f"declare in {context.toml} that 255 is a class: values = [0, 255] (if it is void: values = [0, 1])"
        return replace(finding, severity="error", fix=fix)
    return replace(finding, severity="error")


def _outside_classes(context: _Context) -> str:
    toml = context.toml
    fix = "redraw these pixels"
    fix += f", or in {toml} name more classes, or declare ignore = [...] to ignore them" if toml else ""
    return with_copy(fix, FindingKind.OUTSIDE_CLASSES, context.command)


def _lossy_mask(context: _Context) -> str:
    fix = with_copy(RULES[FindingKind.LOSSY_MASK].fix, FindingKind.LOSSY_MASK, context.command)
    if not context.command or not (tolerance := safe_tolerance(context.form)):
        return fix
    return (
        f"{fix}; with --tolerance {tolerance}, it takes the class whose colour a pixel is near, and ignores those near "
        "none, which is never exact"
    )


def _turned_mask(context: _Context) -> str:
    other = "upright" if context.form.orientation == "stored" else "stored"
    toml = context.toml
    fix = f'turn them, or if all masks were drawn so, set orientation = "{other}" in {toml}' if toml else "turn them"
    return with_copy(fix, FindingKind.TURNED_MASK, context.command)


def _rgb_mask(context: _Context) -> str:
    masks = [mask for mask in context.masks if not mask.lossy]
    coloured = [mask for mask in masks if mask.coloured]
    if any(mask.colors is None for mask in coloured):  # only their headers were read
        return f"{context.command} writes those of known colours as values; without --fix it names the colours"
    certain = [color_form(mask, context.form) for mask in coloured]
    if context.toml and len(coloured) == len(masks) and not all(certain):
        found = sorted({color for mask in coloured for color in mask.colors or ()} - {VOID_COLOR})
        if 0 < len(found) < IGNORE:
            return declare_colors(context.toml, found)
    if (known := sum(form is not None for form in certain)) and context.command:
        rest = "" if known == len(coloured) else ", and leaves the others out"
        return f"{context.command} writes {known} of them as values{rest}"
    return with_copy(RULES[FindingKind.RGB_MASK].fix, FindingKind.RGB_MASK, context.command)


def _binary_mask(context: _Context) -> str:
    masks, classes = context.masks, len(context.form.label_set)
    every = sorted({value for mask in masks for value in mask.values or ()})
    if context.toml and len(every) == classes and IGNORE in every:
        return f"declare in {context.toml} which value is which class: values = {every}"
    there = sorted({value for mask in masks if (value := foreground(mask, context.form)) not in (None, IGNORE)})
    values = " and ".join(map(str, there))
    if classes > 2:
        fix = f"write the class's number in place of {values} (which of the {classes} classes it is, only you know)"
        return with_copy(fix, FindingKind.BINARY_MASK, context.command)
    only = {0, *there, IGNORE}
    if context.toml and len(there) == 1 and all(m.values is not None and set(m.values) <= only for m in masks):
        fix = f"declare in {context.toml} which value is which class: values = [0, {values}]"
        return f"{fix}; {_asked(masks, every)}" if IGNORE in every else fix
    return f"{context.command} writes 1 in place of {values}" if context.command else f"write 1 in place of {values}"


def _palette_order(context: _Context) -> str:
    if context.form.known_colors or not context.toml:
        return with_copy(RULES[FindingKind.PALETTE_ORDER].fix, FindingKind.PALETTE_ORDER, context.command)
    found = sorted({color for mask in context.masks for color in mask.palette.values()} - {VOID_COLOR})
    return declare_colors(context.toml, found)


def _asked(masks: Sequence[MaskFacts], values: Sequence[int]) -> str:
    void = sum((mask.void for mask in masks), NO_VOID)
    return f"255, {void}, is ignored then; if it is a class, name it too: values = {list(values)}"


def _unclear_orientation(context: _Context) -> str:
    seen = [drawn_upright(pair.upright_fit) for pair in context.facts.values() if pair.upright_fit is not None]
    upright, stored = seen.count(True), seen.count(False)
    if not context.toml:
        return with_copy(RULES[FindingKind.UNCLEAR_ORIENTATION].fix, FindingKind.UNCLEAR_ORIENTATION, context.command)
    if upright or stored:
        word = "upright" if upright >= stored else "stored"
        fix = f'set orientation = "{word}" in {context.toml} (by outlines: {upright} upright, {stored} as stored)'
    else:
        fix = f'set orientation = "upright" or orientation = "stored" in {context.toml}'
    return with_copy(fix, FindingKind.UNCLEAR_ORIENTATION, context.command)


_FIXES: dict[FindingKind, Callable[[_Context], str]] = {
    FindingKind.OUTSIDE_CLASSES: _outside_classes,
    FindingKind.LOSSY_MASK: _lossy_mask,
    FindingKind.TURNED_MASK: _turned_mask,
    FindingKind.RGB_MASK: _rgb_mask,
    FindingKind.BINARY_MASK: _binary_mask,
    FindingKind.PALETTE_ORDER: _palette_order,
    FindingKind.UNCLEAR_ORIENTATION: _unclear_orientation,
}
"""Fixes that depend on the dataset, in place of the table's."""
