"""Masks whose colours were smeared by a lossy codec: finding them, and the class that a pixel is nearest to."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import DecodedMask
from atrous.errors import InputError
from atrous.labels import IGNORE, Color, Mask

TOLERANCE = 32
"""What JPEG of usual quality changes at most, but for single pixels along edges."""
APART = 24
"""Colours of classes that are nearer to each other can't be recognised in a smeared mask."""
_STRANGERS = 8
"""From this number of colours of no class on, a mask may be smeared; fewer were chosen by someone."""
_NEAR = 0.9
"""The share of the pixels that must be near the colour of a class."""
_AT_ONCE = 2**16


def is_smeared(colors: Mapping[Color, int], form: MaskForm) -> bool:
    """Whether the colours of a mask are many, and nearly all of them near those of the classes, as JPEG leaves them.

    Args:
        colors: the pixels of each colour; a grey mask has its values as greys.
        form: how masks of the dataset are written.
    """
    found = np.array(list(colors)).reshape(-1, 3)
    pixels = np.array(list(colors.values()))
    for known in _candidates(form):
        strangers = sum(color not in known for color in colors)
        if strangers >= _STRANGERS and _apart(known)[0] >= APART:
            distance, label = _nearest(found, known)
            near = distance <= _largest_tolerance(known)
            if len(np.unique(label[near])) > 1 and pixels[near].sum() >= _NEAR * pixels.sum():
                return True  # numbers that are all near the colour of one class, as black, were not smeared
    return False


def safe_tolerance(form: MaskForm) -> int:
    """The tolerance for :func:`nearest_labels` that tells the classes apart, whether masks have their values or their
    colours: at most :data:`TOLERANCE`, and 0 if there is none.
    """
    return min((tolerance for known in _candidates(form) if (tolerance := _largest_tolerance(known))), default=0)


def nearest_labels(mask: DecodedMask, form: MaskForm, tolerance: int) -> Mask:
    """The labels of a mask with a lossy codec, or smeared colours, as nearly as they can be told: uint8 ``(H, W)``.

    Args:
        mask: as it is stored.
        form: how masks of the dataset are written.
        tolerance: how far each channel of a pixel may be from the colour of its class; other pixels are ignored, 255.

    Raises:
        InputError: two classes have colours nearer to each other than twice the tolerance, or less than 90 % of the
            pixels are near that of a class.
    """
    pixels = np.asarray(mask.image.convert("RGB"))
    packed = pixels.reshape(-1, 3).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    codes, inverse = np.unique(packed, return_inverse=True)
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.int64)
    reasons = []
    for known in _candidates(form):
        apart, (one, other) = _apart(known)
        if apart <= 2 * tolerance:
            reasons.append(
                f"the colours {list(one)} and {list(other)} of classes differ by {apart}, and a tolerance must be "
                "below half of that; declare colours or values in labels.toml if these are not the masks' own"
            )
            continue
        distance, label = _nearest(colors, known)
        label[distance > tolerance] = IGNORE
        near = float((distance <= tolerance)[inverse].mean())
        if near >= _NEAR:
            return label[inverse].reshape(pixels.shape[:2])
        reasons.append(f"{100 * near:.0f} % of its pixels are within {tolerance} of the colour of a class")
    raise InputError(reasons[-1])


def _candidates(form: MaskForm) -> list[dict[Color, int]]:
    """What colours may mean: the label of each. Other ignored pixels are near none, and become ignored like these."""
    by_color = {color: label for label, color in enumerate(form.label_set.colors)}
    by_color |= {color: IGNORE for color in form.ignore if isinstance(color, tuple)}
    if form.encoding == "rgb":
        return [by_color]
    by_value = {value: label for label, value in enumerate(form.values or range(len(form.label_set)))}
    by_value |= {value: IGNORE for value in form.ignore if isinstance(value, int)}
    return [{(value, value, value): label for value, label in by_value.items()}, by_color]


def _apart(known: Mapping[Color, int]) -> tuple[int, tuple[Color, Color]]:
    """The smallest distance of the colours of two labels, and these."""
    pairs = [
        (max(abs(a - b) for a, b in zip(one, other, strict=True)), (one, other))
        for one, other in combinations(known, 2)
        if known[one] != known[other]
    ]
    return min(pairs)


def _largest_tolerance(known: Mapping[Color, int]) -> int:
    return min(TOLERANCE, (_apart(known)[0] - 1) // 2)


def _nearest(colors: NDArray[np.int64], known: Mapping[Color, int]) -> tuple[NDArray[np.int64], Mask]:
    """The distance ``(N,)`` of colours to the nearest that is known, and its label."""
    table, labels = np.array(list(known)), np.array(list(known.values()), np.uint8)
    distances, places = [], []
    for begin in range(0, len(colors), _AT_ONCE):
        apart = np.abs(colors[begin : begin + _AT_ONCE, None] - table).max(2)
        places.append(apart.argmin(1))
        distances.append(apart.min(1))
    return np.concatenate(distances), labels[np.concatenate(places)]
