"""What is in the index masks of a folder, in a few words each: read once a process."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.files.masks import DecodedMask, MaskError, MaskFile
from atrous.data.files.smeared import APART
from atrous.data.files.threads import read_all
from atrous.labels import IGNORE, Color, Mask

THIN = 11
"""A border of ignored pixels is narrower than this; VOC's is about 5 pixels wide."""
LARGE_BORDER = 0.05
"""Up to this share of all pixels, thin borders of 255 beside values that are not class numbers are taken as void."""
PEAK, MANY_VALUES = 0.03, 24
"""Of a mask that JPEG smeared: the least share of a value that was drawn, and how many values there are beside them."""


class Void(NamedTuple):
    """The pixels of value 255 in masks: their number, how many of them are in regions, and that of all pixels.

    A pixel is in a region if a square of :data:`THIN` pixels fits around it; otherwise it is in a thin border.
    """

    pixels: int = 0
    in_regions: int = 0
    total: int = 0

    def __add__(self, other: tuple[int, ...]) -> Void:  # type: ignore[override]
        return Void(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def is_regions(self) -> bool:
        """Whether most of them are in regions, as those of a class are."""
        return 2 * self.in_regions > self.pixels

    @property
    def may_be_a_class(self) -> bool:
        """Whether they are more than the thin borders that usually are to be ignored."""
        return self.is_regions or self.pixels > LARGE_BORDER * self.total

    def __str__(self) -> str:
        share = 100 * self.pixels / max(self.total, 1)
        shape = "in regions, as a class is" if self.is_regions else "in thin borders, as ignored pixels usually are"
        return f"{share:.2g} % of all pixels, most of them {shape}"


NO_VOID = Void()


def void_in(values: Mask) -> Void:
    """Measure the pixels of value 255 in a mask ``(H, W)``."""
    void = (values == IGNORE).astype(np.uint8)
    if not void.any():
        return Void(total=values.size)
    square = np.ones((THIN, THIN), np.uint8)
    core = cv2.erode(void, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    regions = cv2.dilate(core, square)
    return Void(int(void.sum()), int((regions & void).sum()), values.size)


class SeenMask(NamedTuple):
    """What an index mask contains.

    Args:
        values: those that occur.
        levels: the largest grey value that it can have on disk.
        void: its pixels of value 255.
        palette: the colours of its values, if it has a palette.
        peaks: the values of which most pixels are, if other values are many and rare, as JPEG leaves them; else empty.
    """

    values: frozenset[int]
    levels: int = 255
    void: Void = NO_VOID
    palette: tuple[tuple[int, Color], ...] = ()
    peaks: tuple[int, ...] = ()


Seen = Mapping[Path, SeenMask | MaskError]


def masks_seen(masks: Sequence[Path]) -> dict[Path, SeenMask | MaskError]:
    """What is in each index mask, or why it can't be read; an unchanged file is read once per process."""
    return dict(zip(masks, read_all(_seen_in, masks), strict=True))


def _seen_in(mask: Path) -> SeenMask | MaskError:
    try:
        status = mask.stat()
    except OSError:
        return MaskError(f"{mask}: there is no such mask")
    return _read((mask, status.st_mtime_ns, status.st_size))


@functools.cache
def _read(version: tuple[Path, int, int]) -> SeenMask | MaskError:
    try:
        mask = MaskFile(version[0]).open()
        return _summary(mask, mask.values())
    except MaskError as error:
        return error


def _summary(mask: DecodedMask, values: Mask) -> SeenMask:
    counts = np.bincount(values.reshape(-1))
    there = np.flatnonzero(counts).tolist()
    palette = tuple(mask.palette(there).items())
    return SeenMask(frozenset(there), mask.levels, void_in(values), palette, () if palette else _peaks(counts))


def _peaks(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """The values that most pixels have, far from one another, among many that are rare; empty for other masks."""
    found: list[int] = []
    common = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value] >= PEAK * counts.sum()]
    for value in common:
        if all(abs(value - other) >= APART for other in found):
            found.append(value)
    near = sum(counts[value] for value in common if any(abs(value - other) < APART // 2 for other in found))
    many = np.count_nonzero(counts) > max(MANY_VALUES, MANY_VALUES // 3 * len(found))
    return tuple(sorted(found)) if many and near >= 0.8 * counts.sum() else ()


def every_value(seen: Seen) -> frozenset[int]:
    """All values that occur in readable masks."""
    return frozenset[int]().union(*(mask.values for mask in seen.values() if isinstance(mask, SeenMask)))
