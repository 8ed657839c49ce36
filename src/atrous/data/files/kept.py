"""Rasters that stay open for the next window: opening one takes as long as reading a crop."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

from atrous.data.files.rasters import Raster, close_raster, open_kept

MOST_OPEN = 64
"""Rasters of a thread that stay open."""


class _Kept(threading.local):
    """The open rasters of a thread; libraries for rasters are not safe to share between threads."""

    def __init__(self) -> None:
        self.rasters: OrderedDict[tuple[int, Path, int, int], Raster] = OrderedDict()


_kept = _Kept()


def kept_raster(path: Path) -> Raster:
    """An open raster of a TIFF or an array; the same one again in this thread until the file changes.

    Raises:
        ImageError: as :func:`~atrous.data.files.rasters.open_raster`.
    """
    try:
        status = path.stat()
        key = os.getpid(), path, status.st_size, status.st_mtime_ns  # a forked process reads with handles of its own
    except OSError:
        return open_kept(path)  # which says what is wrong
    rasters = _kept.rasters
    if key not in rasters:
        rasters[key] = open_kept(path)
        while len(rasters) > MOST_OPEN:
            close_raster(rasters.popitem(last=False)[1])
    rasters.move_to_end(key)
    return rasters[key]
