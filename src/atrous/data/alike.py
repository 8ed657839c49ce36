"""Images that are nearly the same, whatever their files are called: compressed again, resized, or frames of a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SIDE = 16
"""Side of the thumbnails that are compared."""
MOST_BITS = 12
"""Of the 240 comparisons between neighbouring grey values of a thumbnail, how many may differ."""
MOST_GREY = 8
"""Mean difference of the grey values of two thumbnails, at most."""
FLAT = 6.0
"""Standard deviation of the grey values below which a thumbnail shows too little to be compared."""
_AT_ONCE = 256


def nearly_the_same(thumbnails: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Find the pairs of images that are nearly the same, by a perceptual hash: whether a grey value is larger than its
    right neighbour, and where that agrees, by the grey values themselves.

    Args:
        thumbnails: the :data:`SIDE` × :data:`SIDE` grey values of each image, uint8.

    Yields:
        The places of both, the earlier first.
    """
    if not thumbnails:
        return
    grey = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), SIDE, SIDE)
    vivid = np.flatnonzero(grey.std((1, 2)) >= FLAT)
    if not len(vivid):
        return
    hashes = _hashes(grey[vivid])
    for begin in range(0, len(vivid), _AT_ONCE):
        few = hashes[begin : begin + _AT_ONCE]
        bits = sum(np.bitwise_count(few[:, None, word] ^ hashes[None, begin:, word]) for word in range(hashes.shape[1]))
        for row, column in np.argwhere(np.asarray(bits, np.int64) <= MOST_BITS):
            first, second = int(vivid[begin + row]), int(vivid[begin + column])
            if first < second and np.abs(grey[first].astype(int) - grey[second]).mean() <= MOST_GREY:
                yield first, second


def _hashes(grey: NDArray[np.uint8]) -> NDArray[np.uint64]:
    bits = (grey[:, :, 1:] > grey[:, :, :-1]).reshape(len(grey), -1)
    padded = np.pad(np.packbits(bits, axis=1), ((0, 0), (0, -(bits.shape[1] // 8) % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)
