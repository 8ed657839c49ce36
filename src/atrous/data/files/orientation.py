"""Images that EXIF turns: whether their masks were drawn on the upright image or on the pixels as stored."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.files.exif import Pixels, turn
from atrous.data.files.mask_form import Orientation

Size = tuple[int, int]
"""Height and width."""
Agreement = Literal["fits", "turn it", "drawn otherwise", "unclear", "other size"]
"""How a mask goes with its image: it fits; it fits once it is turned as the image was; its size shows that it was not
drawn as declared; its size can't show how it was drawn, and nothing is declared; it has another size.
"""


def size_of(pixels: NDArray[Any]) -> Size:
    """The size of an image ``(H, W)`` or ``(H, W, 3)``."""
    return pixels.shape[0], pixels.shape[1]


def shown(size: Size) -> str:
    """A size in the usual order: width × height."""
    return f"{size[1]}×{size[0]}"


def agreement(mask: Size, image: Size, orientation: int, declared: Orientation | None) -> Agreement:
    """Decide how a mask and an image go together.

    Args:
        mask: size of the mask as it is stored.
        image: size of the image as it is shown, upright.
        orientation: EXIF orientation of the image, 1 to 8.
        declared: how masks were drawn, if that is declared.
    """
    stored = image[::-1] if orientation >= 5 else image
    if orientation == 1 or mask not in (image, stored):
        return "fits" if mask == image else "other size"
    if image == stored:
        return "unclear" if declared is None else "fits" if declared == "upright" else "turn it"
    drawn: Orientation = "upright" if mask == image else "stored"
    if drawn != (declared or "upright"):
        return "drawn otherwise"
    return "fits" if drawn == "upright" else "turn it"


def upright_fit(image: Pixels, mask: NDArray[np.uint8], orientation: int) -> float | None:
    """Measure how much better the outlines of a mask fit an image as it is shown than as it is stored.

    Args:
        image: uint8 RGB ``(H, W, 3)``, upright.
        mask: uint8 ``(H, W)``, values or labels, or ``(H, W, 3)``, colours; as it is stored.
        orientation: EXIF orientation of the image, 2 to 8, one that keeps the size of the mask.

    Returns:
        The image's mean gradient along the outlines of the mask, divided by that along the outlines of the turned mask;
        None if the mask has no outlines.
    """
    smooth = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    along = []
    for drawn in (mask, turn(mask, orientation)):
        edges: NDArray[Any] = cv2.morphologyEx(drawn, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        outline = edges.reshape(*edges.shape[:2], -1).any(axis=2)
        if not outline.any():
            return None
        along.append(float(gradient[outline].mean()))
    return along[0] / max(along[1], 1e-6)


def disagreement(found: Agreement, mask: Size, image: Size) -> str:
    """What is wrong with a pair that does not fit, and the fix, as the end of a sentence that names both."""
    if found == "unclear":
        return (
            "EXIF turns the image, and sizes can't show whether the mask was drawn on it as it is shown (set "
            'orientation = "upright" in labels.toml) or on its pixels as they are stored (orientation = "stored")'
        )
    if found == "drawn otherwise":
        shown = mask == image
        drawn, other = ("as it is shown", "upright") if shown else ("as its pixels are stored", "stored")
        return (
            f'EXIF turns the image, and the mask was drawn on it {drawn}: set orientation = "{other}" in labels.toml '
            "if all were drawn so, or let `atrous data check SPEC --fix NEW_FOLDER` turn those that must be turned"
        )
    turned = "one of the two is turned; " if mask == image[::-1] else ""
    return f"{turned}both must have the same size"
