"""The shapes that an annotation tool has for an image, and the mask that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.files.limits import check_pixels
from atrous.data.files.rasterise import Ring, Rule, Window, rasterise
from atrous.data.files.rle import inside_brush, inside_rows
from atrous.errors import InputError
from atrous.labels import Mask

Overlap = Literal["area", "order", "last"]
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


class Geometry(Protocol):
    """What a shape covers."""

    def window(self, height: int, width: int) -> Window:
        """Its pixels in an image ``(height, width)``.

        Raises:
            InputError: it does not fit the image, or can't be decoded.
        """


@dataclass(frozen=True, eq=False)
class Polygon:
    """One or more rings; by the rule ``centre``, those inside others are holes."""

    rings: tuple[Ring, ...]
    rule: Rule = "centre"

    def window(self, height: int, width: int) -> Window:
        return rasterise(self.rings, height, width, self.rule)


@dataclass(frozen=True, eq=False)
class Fractions:
    """A polygon whose corners are fractions of the image's width and height."""

    rings: tuple[Ring, ...]

    def window(self, height: int, width: int) -> Window:
        return rasterise([ring * (width, height) for ring in self.rings], height, width)


@dataclass(frozen=True, eq=False)
class Ellipse:
    """A pixel belongs if its centre lies inside; ``angle`` in degrees, clockwise."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    angle: float = 0.0

    def window(self, height: int, width: int) -> Window:
        reach = max(abs(self.radius_x), abs(self.radius_y))
        top, bottom = (int(np.clip(y, 0, height)) for y in (self.y - reach - 1, self.y + reach + 1))
        left, right = (int(np.clip(x, 0, width)) for x in (self.x - reach - 1, self.x + reach + 1))
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        turn = np.deg2rad(self.angle)
        along = (x - self.x) * np.cos(turn) + (y - self.y) * np.sin(turn)
        across = (y - self.y) * np.cos(turn) - (x - self.x) * np.sin(turn)
        inside = (along * self.radius_y) ** 2 + (across * self.radius_x) ** 2 <= (self.radius_x * self.radius_y) ** 2
        return Window(top, left, inside)


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Pixels ``(h, w)``, decoded when they are needed, whose upper left one is in row ``top`` and column ``left``."""

    top: int
    left: int
    decode: Callable[[], NDArray[np.bool_]]

    def window(self, height: int, width: int) -> Window:
        return _clipped(Window(self.top, self.left, self.decode()), height, width)


@dataclass(frozen=True, eq=False)
class RowRuns:
    """Runs along the rows of a box of ``height`` × ``width`` pixels: outside, inside, outside, …"""

    top: int
    left: int
    height: int
    width: int
    runs: Sequence[int]

    def window(self, height: int, width: int) -> Window:
        check_pixels(self.height, self.width)
        return _clipped(Window(self.top, self.left, inside_rows(self.runs, self.height, self.width)), height, width)


@dataclass(frozen=True, eq=False)
class Brush:
    """Label Studio's coding of the whole image."""

    packed: Sequence[int]

    def window(self, height: int, width: int) -> Window:
        return Window(0, 0, inside_brush(self.packed, height, width))


def _clipped(window: Window, height: int, width: int) -> Window:
    top, left = max(window.top, 0), max(window.left, 0)
    inside = window.inside[top - window.top :, left - window.left :]
    return Window(top, left, inside[: max(0, height - top), : max(0, width - left)])


class Shape(NamedTuple):
    """An object: the name of its class, what it covers, its place in the tool's stacking order, what to call it."""

    name: str
    geometry: Geometry
    order: float = 0
    called: str = ""


@dataclass(frozen=True)
class Scene:
    """The annotations of an image.

    Args:
        height, width: of the image; 0 where the annotations do not have its size.
        shapes: in the order of the file.
        refused: shapes that have no area of their own, such as boxes and lines, each as a few words.
    """

    height: int
    width: int
    shapes: tuple[Shape, ...]
    refused: tuple[str, ...] = field(default=())


def paint(scene: Scene, classes: Mapping[str, int], overlap: Overlap, base: int = 0) -> Mask:
    """The mask ``(H, W)`` of the shapes of an image.

    Args:
        scene: the shapes.
        classes: the label of each class's name.
        overlap: which of two shapes lies over the other: ``area``, the smaller; ``order``, the one in front in the
            tool; ``last``, the one later in the file. It also decides where the others are equal.
        base: the label where there is no shape.

    Raises:
        InputError: a class without a label, or a shape that can't be drawn.
    """
    if unknown := [shape.name for shape in scene.shapes if shape.name not in classes]:
        known = ", ".join(classes)
        raise InputError(f"a shape of the class '{unknown[0]}', which is not one of the dataset's: {known}")
    check_pixels(scene.height, scene.width)
    mask = np.full((scene.height, scene.width), base, np.uint8)
    for shape in in_drawing_order(scene, overlap):
        window = drawn(shape, scene)
        window.of(mask)[window.inside] = classes[shape.name]
    return mask


def in_drawing_order(scene: Scene, overlap: Overlap) -> Iterable[Shape]:
    """The shapes of an image from back to front."""
    if overlap == "order":
        return sorted(scene.shapes, key=lambda shape: shape.order)
    if overlap == "area" and len(scene.shapes) > 1:
        return sorted(scene.shapes, key=lambda shape: -drawn(shape, scene).area)
    return scene.shapes


def drawn(shape: Shape, scene: Scene) -> Window:
    """The pixels of a shape.

    Raises:
        InputError: it can't be drawn; the message says which.
    """
    try:
        return shape.geometry.window(scene.height, scene.width)
    except (InputError, cv2.error, OverflowError, ValueError) as error:
        raise InputError(f"{shape.called or 'a shape'} of the class '{shape.name}': {error}") from error
