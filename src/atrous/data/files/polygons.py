"""The classes of a mask as polygons with holes: GeoPackage or GeoJSON, in the mask's coordinate reference system.

It needs rasterio, shapely and pyogrio: ``pip install 'atrous[geo]'``.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from atrous.data.files.rasters import CACHE_BYTES, open_dataset
from atrous.errors import InputError
from atrous.files import replacing_file, write_atomically
from atrous.labels import LabelSet

PolygonFormat = Literal["gpkg", "geojson"]
FORMATS = tuple(f".{name}" for name in get_args(PolygonFormat))


def require_packages(name: str) -> None:
    """Refuse polygons before anything is computed for them.

    Args:
        name: of the format, or of a file.

    Raises:
        InputError: another format, or what writing it needs is not installed.
    """
    if f".{name.lower()}".endswith(FORMATS):
        try:
            import pyogrio  # type: ignore[import-untyped]  # noqa: F401
            import rasterio.features  # type: ignore[import-untyped]  # noqa: F401
            import shapely  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise InputError(f"{name}: polygons need {error.name}: pip install 'atrous[geo]'") from error
        return
    raise InputError(f"{name}: polygons are written as {' or '.join(FORMATS)}")


def write_polygons(mask: Path, path: Path, label_set: LabelSet, *, tolerance: float = 0.0) -> int:
    """Outline every connected region of a class in a mask.

    The mask is read in windows, and regions are not cut anywhere. Neighbours keep their common borders when they are
    simplified, so that no gaps come between them.

    Args:
        mask: a mask PNG or GeoTIFF; ignored pixels are left out.
        path: of the result, ``.gpkg`` or ``.geojson``. Coordinates are those of the mask's coordinate reference system
            (for GeoJSON too, which names it), or pixels if it has none.
        label_set: names of the classes.
        tolerance: how far borders may move, in the same units.

    Returns:
        The number of polygons. Each has the fields ``class``, ``label`` and ``area``, in square units.

    Raises:
        InputError: another suffix, or a package is not installed.
        OSError: the result can't be written.
    """
    require_packages(str(path))
    import pyogrio
    import rasterio
    import rasterio.features
    import shapely

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), open_dataset(mask) as file:
        crs = file.crs
        found = [
            (shapely.geometry.shape(shape), int(label))
            for shape, label in rasterio.features.shapes(rasterio.band(file, 1), transform=file.transform)
            if label != label_set.ignore
        ]
    shapes, labels = np.array([shape for shape, _ in found], object), np.array([label for _, label in found], int)
    if tolerance and len(shapes):
        shapes = shapely.coverage_simplify(shapes, tolerance)
    fields = {
        "class": np.array([label_set.names[label] for label in labels], object),
        "label": labels.astype(np.int32),
        "area": shapely.area(shapes),
    }
    if path.suffix.lower() == ".geojson":
        write_atomically(path, _geojson(shapely.to_geojson(shapes), fields, crs))
        return len(shapes)
    try:
        with replacing_file(path, ".gpkg") as beside, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # an image has pixels
            pyogrio.raw.write(
                beside,
                geometry=shapely.to_wkb(shapes),
                field_data=list(fields.values()),
                fields=list(fields),
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
                layer=path.stem,
                driver="GPKG",
            )
    except pyogrio.errors.DataSourceError as error:
        raise OSError(f"{path} can't be written: {error}") from error
    return len(shapes)


def _geojson(geometries: Any, fields: dict[str, Any], crs: Any) -> bytes:
    features = [
        {"type": "Feature", "geometry": json.loads(geometry), "properties": dict(zip(fields, values, strict=True))}
        for geometry, *values in zip(geometries, *(field.tolist() for field in fields.values()), strict=True)
    ]
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs and crs.to_epsg():  # RFC 7946 knows WGS 84 alone; GDAL and QGIS read the older member
        content["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs.to_epsg()}"}}
    return json.dumps(content, ensure_ascii=False).encode()
