"""Findings about the shapes of annotation tools: outside the image, empty, or there twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from atrous.data.files.drawn import DrawnMask
from atrous.data.files.rasterise import Ring
from atrous.data.files.shapes import Fractions, Polygon, Scene, Shape, drawn
from atrous.data.files.threads import read_all
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item, make_finding
from atrous.data.sources.base import Listed
from atrous.data.sources.reclassed import ReclassedMask
from atrous.errors import InputError

_SHOWN = 5
"""Shapes of a mask that are named."""


class _Faults(NamedTuple):
    """What is remarkable about the shapes of a mask, each shape by what it is called."""

    outside: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()


def shape_findings(pairs: Sequence[Listed]) -> list[Finding]:
    """Warnings about masks that are drawn from shapes; those of files are left alone."""
    masks = [_drawn_mask(pair) for pair in pairs]
    masks = [mask for mask in masks if mask is not None]
    found = list(zip(masks, read_all(_faults, [mask for mask in masks if mask]), strict=True))
    findings = []
    for place, kind in enumerate((FindingKind.OUTSIDE_IMAGE, FindingKind.EMPTY_SHAPE, FindingKind.REPEATED_SHAPE)):
        items = [Item(str(mask), _named(faults[place])) for mask, faults in found if faults[place]]
        findings += [make_finding(kind, items)] if items else []
    return findings


def _drawn_mask(pair: Listed) -> DrawnMask | None:
    mask = pair.mask.mask if isinstance(pair.mask, ReclassedMask) else pair.mask
    return mask if isinstance(mask, DrawnMask) else None


def _named(shapes: Sequence[str]) -> str:
    return ", ".join(shapes[:_SHOWN]) + (f", … and {len(shapes) - _SHOWN} more" if len(shapes) > _SHOWN else "")


def _faults(mask: DrawnMask) -> _Faults:
    try:
        scene = mask.scene()
        windows = [(shape, drawn(shape, scene)) for shape in scene.shapes]
    except (InputError, OSError):  # which the mask itself is reported for
        return _Faults()
    empty: list[str] = []
    repeated: list[str] = []
    seen: dict[tuple[object, ...], Shape] = {}
    for shape, window in windows:
        rows, columns = (np.flatnonzero(window.inside.any(axis)) for axis in (1, 0))
        if not len(rows):
            empty.append(_name(shape))
            continue
        inside = window.inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        key = (window.top + int(rows[0]), window.left + int(columns[0]), inside.shape, np.packbits(inside).tobytes())
        if key in seen:
            repeated.append(f"{_name(shape)} like {_name(seen[key])}")
        seen.setdefault(key, shape)
    outside = [_name(shape) for shape in scene.shapes if _mostly_outside(shape, scene)]
    return _Faults(tuple(outside), tuple(name for name in empty if name not in outside), tuple(repeated))


def _name(shape: Shape) -> str:
    return f"{shape.called} ('{shape.name}')"


def _mostly_outside(shape: Shape, scene: Scene) -> bool:
    """Whether more than half of the box around a polygon lies outside the image."""
    rings = _rings(shape, scene)
    if not rings:
        return False
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    whole = (right - left) * (bottom - top)
    here = np.clip([right, bottom], 0, [scene.width, scene.height]) - np.clip(
        [left, top], 0, [scene.width, scene.height]
    )
    return bool(whole > 0 and here.prod() < whole / 2)


def _rings(shape: Shape, scene: Scene) -> list[Ring]:
    if isinstance(shape.geometry, Polygon):
        return list(shape.geometry.rings)
    if isinstance(shape.geometry, Fractions):
        return [ring * (scene.width, scene.height) for ring in shape.geometry.rings]
    return []
