"""Class probabilities of large images, as bytes: made strip by strip with the labels, written as a band per class."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.files.mask_rows import write_cog
from atrous.data.files.rasters import Georeference
from atrous.grid import Grid, resample
from atrous.labels import IGNORE, LabelSet, Mask, ignored

STEPS = 254
"""The byte of probability 1: a byte b is b / 254, and 255 is a pixel that was not measured."""
_VALUES = 2**24
"""Probabilities that are made at once."""
_COLUMNS = 512
_ROWS = 512
"""Rows of a block of the file."""

TakeProbabilities = Callable[[int, NDArray[np.uint8]], None]
"""Called with the first row of a strip and its bytes ``(C, rows, W)``."""


def byte_strips(
    logits: Tensor, grid: Grid, rows: tuple[int, int], width: int, *, averaged: bool
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The probabilities of some rows of pixels, as bytes.

    Args:
        logits: ``(C, h, w)``; or probabilities, if they are ``averaged`` over views.
        grid: where they sit.
        rows: of pixels: the first, and the one after the last.
        width: of the image in pixels.
        averaged: whether ``logits`` are probabilities already.

    Yields:
        The first row of a part of them, and its bytes ``(C, rows, width)``.
    """
    step = max(1, _VALUES // (logits.shape[0] * width))
    for top in range(rows[0], rows[1], step):
        height = min(step, rows[1] - top)
        strip = np.empty((logits.shape[0], height, width), np.uint8)
        for left, right in pairwise([*range(0, width, _COLUMNS), width]):
            first = max(0, floor((left - grid.offset) / grid.stride))
            last = floor((right - 1 - grid.offset) / grid.stride) + 2
            near = logits[None, :, :, min(first, logits.shape[2] - 1) : last].contiguous()
            first = min(first, logits.shape[2] - 1)
            source = grid, Grid(grid.stride, grid.offset + first * grid.stride)
            full = resample(near, source, (Grid(1, top), Grid(1, left)), (height, right - left))[0]
            likely = full if averaged else full.softmax(0)
            strip[:, :, left:right] = (likely * STEPS).round().numpy()
        yield top, strip


def write_probabilities(
    path: Path,
    stored: NDArray[np.uint8],
    labels: Mask,
    label_set: LabelSet,
    georeference: Georeference | None,
    text: Mapping[str, str],
) -> None:
    """Write probabilities as a cloud-optimised GeoTIFF with a band per class, atomically, a block at a time.

    The bands are called after the classes, with scale 1 / 254 and nodata 255; the metadata say so too.

    Args:
        path: of the file.
        stored: bytes ``(H, C, W)``, such as a memory map.
        labels: ``(H, W)``, likewise: where they are ignored, nothing was measured.
        label_set: names of the classes.
        georeference: where the image lies, if that is known.
        text: further metadata.

    Raises:
        OSError: it can't be written; nothing has changed.
        InputError: rasterio is not installed.
    """
    height, bands, width = stored.shape

    def fill(file: Any) -> None:
        for band, name in enumerate(label_set.names, 1):
            file.set_band_description(band, name)
        file.scales, file.offsets = (1 / STEPS,) * bands, (0.0,) * bands
        meaning = f"probability = value / {STEPS}; {IGNORE}: not measured"
        file.update_tags(classes=json.dumps(label_set.names), values=meaning, **text)
        for top in range(0, height, _ROWS):
            bottom = min(top + _ROWS, height)
            absent = ignored(labels[top:bottom])
            for band in range(bands):
                values = np.where(absent, np.uint8(IGNORE), stored[top:bottom, band])
                file.write(values, band + 1, window=((top, bottom), (0, width)))

    write_cog(path, (height, width), bands, georeference, fill, "average")
