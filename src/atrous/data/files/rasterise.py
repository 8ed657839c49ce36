"""From outlines to pixels, by stated rules.

``centre``: a pixel belongs to an outline if its centre does, by the even-odd rule over all its rings, so that a ring
inside another is a hole; a centre on a left or upper edge belongs, on a right or lower one it does not, so that
outlines that share an edge share no pixel. ``coco``: COCO's own program (pycocotools), the union of the rings.
``pillow``: Pillow's polygons, which labelme's own export draws: every pixel that the outline touches, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from atrous.data.files.rle import inside_runs, unpack_runs
from atrous.errors import InputError

Rule = Literal["centre", "coco", "pillow"]
Ring = NDArray[np.float64]
"""The corners ``(N, 2)`` of an outline, x and y in pixels: the upper left corner of the image is (0, 0), the centre of
its first pixel (0.5, 0.5).
"""

FARTHEST = 10**6
"""Corners may be this many pixels away; no image is as large."""
_AT_ONCE = 2**20
"""Pixels of an outline that are filled at once: each takes 17 bytes."""


class Window(NamedTuple):
    """Pixels of an object: which of a rectangle, bool ``(h, w)``, whose upper left pixel is in row ``top`` and column
    ``left`` of the image.
    """

    top: int
    left: int
    inside: NDArray[np.bool_]

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.inside))

    def of(self, mask: NDArray[Any]) -> NDArray[Any]:
        """The same rectangle of an array ``(H, W)``, as a view."""
        height, width = self.inside.shape
        return mask[self.top : self.top + height, self.left : self.left + width]


NOTHING = Window(0, 0, np.zeros((0, 0), np.bool_))


def rasterise(rings: Sequence[Ring], height: int, width: int, rule: Rule = "centre") -> Window:
    """The pixels of an image ``(height, width)`` inside an object of one or more rings.

    Raises:
        InputError: pycocotools is needed and missing, or a corner is beyond :data:`FARTHEST`.
    """
    for ring in rings:
        if not (np.abs(ring) <= FARTHEST).all():  # also if one is not a number
            raise InputError(f"a corner that is not finite, or more than {FARTHEST:,} pixels away")
    if rule == "centre":
        return _by_centres(rings, height, width)
    return (_as_coco if rule == "coco" else _as_pillow)(rings, height, width)


def _by_centres(rings: Sequence[Ring], height: int, width: int) -> Window:
    x, y, next_x, next_y = _edges(rings)
    first = np.ceil(y).clip(0, height).astype(np.int64)
    count = np.ceil(next_y).clip(0, height).astype(np.int64) - first  # rows that each edge crosses
    if not count.any():
        return NOTHING
    edge = np.repeat(np.arange(len(x)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    crossing = x[edge] + (row - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
    column = np.ceil(crossing).clip(0, width).astype(np.int64)
    top, left = int(row.min()), int(column.min())
    columns = int(column.max()) - left + 1
    inside = np.zeros((int(row.max()) + 1 - top, columns - 1), np.bool_)
    step = max(1, _AT_ONCE // columns)
    for begin in range(0, len(inside), step):
        here = (row >= top + begin) & (row < top + begin + step)
        rows = min(step, len(inside) - begin)
        turns = np.bincount((row[here] - top - begin) * columns + column[here] - left, minlength=rows * columns)
        inside[begin : begin + rows] = np.cumsum(turns.reshape(rows, columns), 1)[:, :-1] % 2 == 1
    return Window(top, left, inside)


def _edges(rings: Sequence[Ring]) -> tuple[Ring, Ring, Ring, Ring]:
    """The upper and the lower end of every edge, shifted so that pixel centres are integers.

    An edge is crossed at the same places in whichever direction a ring passes it.
    """
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) - 0.5 for ring in rings]
    begins = np.concatenate([np.zeros((0, 2)), *rings])
    ends = np.concatenate([np.zeros((0, 2)), *(np.roll(ring, -1, 0) for ring in rings)])
    upward = begins[:, 1:] > ends[:, 1:]
    upper, lower = np.where(upward, ends, begins), np.where(upward, begins, ends)
    return upper[:, 0], upper[:, 1], lower[:, 0], lower[:, 1]


def _as_coco(rings: Sequence[Ring], height: int, width: int) -> Window:
    mask = require_pycocotools()
    outlines = [np.asarray(ring, np.float64).ravel().tolist() for ring in rings]
    runs = mask.merge(mask.frPyObjects(outlines, height, width))
    inside = inside_runs(unpack_runs(runs["counts"].decode()), height, width)  # its own decoder warns of NumPy 2
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows):
        return NOTHING
    top, left = int(rows[0]), int(columns[0])
    return Window(top, left, inside[top : rows[-1] + 1, left : columns[-1] + 1])


def _as_pillow(rings: Sequence[Ring], height: int, width: int) -> Window:
    image = Image.new("1", (width, height))
    for ring in rings:
        corners = [(float(x), float(y)) for x, y in np.asarray(ring, np.float64).reshape(-1, 2)]
        ImageDraw.Draw(image).polygon(corners, fill=1, outline=1)
    return Window(0, 0, np.asarray(image))


def require_pycocotools() -> Any:
    """The module of COCO's own rasteriser.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            "its polygons are drawn by COCO's own program, which is not installed: pip install 'atrous[coco]'"
        ) from error
    return mask
