"""Masks written row by row, so that memory does not grow with them: PNGs, and GeoTIFFs that keep the place of the image
on the earth.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atrous.data.files.png import SIGNATURE
from atrous.data.files.rasters import CACHE_BYTES, Georeference, import_rasterio, open_dataset
from atrous.errors import InputError
from atrous.files import replacing_file
from atrous.labels import IGNORE, LabelSet, Mask

_LEVEL = 1
"""Of zlib: labels are long runs, which higher levels make little smaller and take several times as long for."""

Rows = Iterable[Mask]
"""Strips of labels ``(rows, W)`` from top to bottom."""


def write_png_rows(
    path: Path, rows: Rows, size: tuple[int, int], label_set: LabelSet, text: Mapping[str, str] | None = None
) -> None:
    """Write labels as a PNG, like :func:`atrous.labels.encode_mask`, atomically.

    Args:
        path: of the file.
        rows: of labels, ``size[0]`` in all.
        size: height and width.
        label_set: gives the palette; of more than 255 classes, a grey PNG of 16 bits is written.
        text: PNG text fields, ASCII.

    Raises:
        OSError: it can't be written; nothing has changed.
    """
    height, width = size
    wide = label_set.ignore != IGNORE
    depth, color = (16, 0) if wide else (8, 3)
    with replacing_file(path) as beside, beside.open("wb") as file:
        file.write(SIGNATURE)
        file.write(_chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + bytes([depth, color, 0, 0, 0])))
        for key, value in (text or {}).items():
            file.write(_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1")))
        if not wide:
            file.write(_chunk(b"PLTE", label_set.palette().tobytes()))
        packing = zlib.compressobj(_LEVEL)
        for strip in rows:
            values = np.ascontiguousarray(strip, ">u2" if wide else np.uint8).view(np.uint8)
            lines = np.zeros((len(strip), values.shape[1] + 1), np.uint8)  # each row begins with its filter: none
            lines[:, 1:] = values
            if packed := packing.compress(lines.tobytes()):
                file.write(_chunk(b"IDAT", packed))
        file.write(_chunk(b"IDAT", packing.flush()))
        file.write(_chunk(b"IEND", b""))


def write_geotiff_rows(
    path: Path,
    rows: Rows,
    size: tuple[int, int],
    label_set: LabelSet,
    georeference: Georeference | None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write labels as a cloud-optimised GeoTIFF with overviews, atomically: 255 is its nodata value, the classes'
    colours are its colour table, and their names are in the metadata, as JSON under ``classes``. Of more than 255
    classes it has 16 bits, 65535 as its nodata value, and no colour table.

    Args:
        path: of the file.
        rows: of labels, ``size[0]`` in all.
        size: height and width.
        label_set: names and colours of the classes.
        georeference: where the image lies, if that is known.
        text: further metadata.

    Raises:
        OSError: it can't be written; nothing has changed.
        InputError: rasterio is not installed.
    """

    def fill(file: Any) -> None:
        if label_set.ignore == IGNORE:
            palette = {label: (*map(int, color), 255) for label, color in enumerate(label_set.palette())}
            file.write_colormap(1, palette | {IGNORE: (0, 0, 0, 0)})
        file.update_tags(classes=json.dumps(label_set.names), **(text or {}))
        top = 0
        for strip in rows:
            file.write(strip, 1, window=((top, top + len(strip)), (0, size[1])))
            top += len(strip)

    write_cog(path, size, 1, georeference, fill, "nearest", np.dtype(label_set.dtype).name)


def write_cog(
    path: Path,
    size: tuple[int, int],
    bands: int,
    georeference: Georeference | None,
    fill: Callable[[Any], None],
    resampling: str,
    dtype: str = "uint8",
) -> None:
    """Write a cloud-optimised GeoTIFF whose nodata value is the largest of its type, 255 of bytes, atomically.

    Args:
        path: of the file.
        size: height and width.
        bands: how many.
        georeference: where it lies, if that is known.
        fill: writes into the open dataset, which has each band in blocks of 512 rows of its own.
        resampling: of the overviews.
        dtype: of the values, ``uint8`` or ``uint16``.

    Raises:
        OSError: it can't be written; nothing has changed.
        InputError: rasterio is not installed.
    """
    rasterio = import_rasterio()
    if rasterio is None:
        raise InputError(f"{path}: writing GeoTIFFs needs rasterio: pip install 'atrous[geo]'")
    from rasterio.shutil import copy  # type: ignore[import-untyped]

    height, width = size
    place = {}
    if georeference:
        place = {"crs": georeference.crs, "transform": rasterio.Affine(*georeference.transform)}
    nodata = np.iinfo(dtype).max
    form = {"driver": "GTiff", "dtype": dtype, "count": bands, "height": height, "width": width, "nodata": nodata}
    storage = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "bigtiff": "if_safer"}
    if bands > 1:
        storage |= {"interleave": "band", "photometric": "minisblack"}
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), replacing_file(path) as beside:
            plain = beside.with_name(f"{beside.name}.tif")
            try:
                with open_dataset(plain, "w", **form, **storage, **place) as file:
                    fill(file)
                kept = {"compress": "deflate", "bigtiff": "if_safer"}
                copy(plain, beside, driver="COG", overview_resampling=resampling, **kept)
            finally:
                plain.unlink(missing_ok=True)
    except rasterio.errors.RasterioError as error:
        raise OSError(f"{path} can't be written: {error}") from error


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
