"""Polygons of masks: areas and holes are those of the mask, in its coordinates, and GDAL reads them."""

from pathlib import Path

import numpy as np
import pytest

from atrous.data.files.mask_rows import write_geotiff_rows, write_png_rows
from atrous.data.files.polygons import write_polygons
from atrous.data.files.rasters import Georeference
from atrous.errors import InputError
from atrous.labels import LabelSet

pytest.importorskip("rasterio", reason="needs the extra geo")
pyogrio = pytest.importorskip("pyogrio", reason="needs the extra geo")
shapely = pytest.importorskip("shapely", reason="needs the extra geo")
LABELS = LabelSet.of(("ground", "roof", "tree"))


@pytest.fixture
def labels() -> np.ndarray:
    """A roof of 40 × 60 pixels with a yard of 10 × 10, a tree of one pixel that touches it by a corner, and void."""
    labels = np.zeros((300, 200), np.uint8)
    labels[20:60, 30:90] = 1
    labels[30:40, 40:50] = 0
    labels[60, 90] = 2
    labels[290:] = 255
    return labels


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
@pytest.mark.parametrize("tolerance", [0.0, 0.4])
def test_areas_holes_and_place(labels: np.ndarray, suffix: str, tolerance: float, tmp_path: Path) -> None:
    from rasterio.crs import CRS

    place = Georeference(CRS.from_epsg(32632).to_wkt(), (0.5, 0.0, 400000.0, 0.0, -0.5, 5600000.0))
    write_geotiff_rows(tmp_path / "mask.tif", [labels], (300, 200), LABELS, place)
    path = tmp_path / f"mask{suffix}"
    assert write_polygons(tmp_path / "mask.tif", path, LABELS, tolerance=tolerance) == 4
    meta, _, geometries, fields = pyogrio.raw.read(path)
    assert meta["crs"] == "EPSG:32632"
    found = dict(zip(meta["fields"], fields, strict=True))
    assert sorted(found["class"]) == ["ground", "ground", "roof", "tree"]
    roof = shapely.from_wkb(geometries[list(found["class"]).index("roof")])
    assert roof.area == found["area"][list(found["class"]).index("roof")] == (40 * 60 - 100) / 4
    assert len(roof.interiors) == 1
    assert roof.bounds == (400015.0, 5599970.0, 400045.0, 5599990.0)
    assert found["area"].sum() == (labels != 255).sum() / 4


def test_pixels_where_there_is_no_place(labels: np.ndarray, tmp_path: Path) -> None:
    write_png_rows(tmp_path / "mask.png", [labels], (300, 200), LABELS)
    write_polygons(tmp_path / "mask.png", tmp_path / "mask.geojson", LABELS)
    _, _, _, fields = pyogrio.raw.read(tmp_path / "mask.geojson")
    assert sum(fields[2]) == (labels != 255).sum()


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask\.shp: polygons are written as \.gpkg or \.geojson"):
        write_polygons(tmp_path / "mask.png", tmp_path / "mask.shp", LABELS)
