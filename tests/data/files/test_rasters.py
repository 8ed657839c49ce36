"""Windows of rasters: those of the whole array, for TIFFs of every kind, ``.npy`` and ordinary images; and masks
written row by row.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.images import ImageError, open_image, read_image
from atrous.data.files.mask_rows import write_geotiff_rows, write_png_rows
from atrous.data.files.raster_values import EightBits
from atrous.data.files.rasters import Georeference, open_raster
from atrous.labels import LabelSet

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
PLACE = Georeference(None, (0.5, 0.0, 400000.0, 0.0, -0.5, 5600000.0))
LABELS = LabelSet.of(("ground", "roof", "tree"))


def write_tiff(path: Path, values: NDArray[np.generic], **options: object) -> Path:
    height, width, bands = values.shape
    form = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": values.dtype}
    with rasterio.open(
        path, "w", **form, crs="EPSG:32632", transform=rasterio.Affine(*PLACE.transform), **options
    ) as f:
        f.write(np.moveaxis(values, -1, 0))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize(
    "storage", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "lzw"}, {"interleave": "band"}]
)
def test_windows_of_a_tiff(dtype: type, storage: dict[str, object], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 120, (150, 170, 4)).astype(dtype)
    with open_raster(write_tiff(tmp_path / "a.tif", values, **storage)) as raster:
        assert (raster.height, raster.width, raster.bands, raster.dtype) == (150, 170, 4, dtype)
        assert raster.georeference is not None
        assert raster.georeference.transform == PLACE.transform
        assert "UTM zone 32N" in (raster.georeference.crs or "")
        np.testing.assert_array_equal(raster.read((20, 97), (100, 170)), values[20:97, 100:170])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_eight_bits_are_those_of_whole_images(dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 30_000 if dtype is not np.uint8 else 256, (60, 50, 1)).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", values)
    with open_raster(path) as raster:
        pixels = EightBits(raster, 3, None, "a.tif").read((0, 60), (0, 50))
        assert not raster.tells_absent
    np.testing.assert_allclose(
        pixels.astype(int), open_image(path).pixels.astype(int), atol=1 if dtype is np.int16 else 0
    )


def test_bands_are_chosen_and_nodata_is_told(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 256, (40, 30, 5)).astype(np.uint8)
    values[:7] = 0
    with open_raster(write_tiff(tmp_path / "a.tif", values, nodata=0)) as raster:
        pixels = EightBits(raster, 3, (4, 3, 2), "a.tif").read((5, 40), (0, 30))
        np.testing.assert_array_equal(pixels, values[5:, :, [3, 2, 1]])
        assert raster.tells_absent
        absent = raster.absent(raster.read((5, 40), (0, 30)))
        np.testing.assert_array_equal(absent, (values[5:] == 0).all(2))
        with pytest.raises(ImageError, match=r"a\.tif: 5 bands, expected band 6 for a network of 6 channels"):
            EightBits(raster, 6, None, "a.tif")
        with pytest.raises(ImageError, match="2 bands chosen, but the network takes 3"):
            EightBits(raster, 3, (1, 2), "a.tif")


def test_arrays_and_ordinary_images(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    np.save(tmp_path / "a.npy", values)
    Image.fromarray(values).save(tmp_path / "a.png")
    for name in ("a.npy", "a.png"):
        with open_raster(tmp_path / name) as raster:
            np.testing.assert_array_equal(raster.read((3, 40), (0, 7)), values[3:40, :7])
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(ImageError, match=r"b\.npy: an array \(2, 3, 4, 5\) of float64; expected numbers"):
        open_raster(tmp_path / "b.npy").__enter__()


def test_a_truncated_tiff_is_an_error(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 256, (400, 300, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(ImageError, match=r"a\.tif: a damaged TIFF \(rows 300 to 400"), open_raster(path) as raster:
        raster.read((300, 400), (0, 300))
    (tmp_path / "b.tif").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"b\.tif: expected a TIFF"):
        open_raster(tmp_path / "b.tif").__enter__()


def test_masks_are_written_row_by_row(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (700, 530)).astype(np.uint8)
    labels[:30] = 255
    strips = [labels[:100], labels[100:101], labels[101:]]
    write_png_rows(tmp_path / "a.png", strips, (700, 530), LABELS, {"key": "value"})
    with Image.open(tmp_path / "a.png") as png:
        png.load()
        assert png.info["key"] == "value"
        np.testing.assert_array_equal(np.asarray(png), labels)
        assert (png.getpalette() or [])[:768] == LABELS.palette().reshape(-1).tolist()
    write_geotiff_rows(tmp_path / "a.tif", strips, (700, 530), LABELS, PLACE, {"key": "value"})
    with rasterio.open(tmp_path / "a.tif") as tiff:
        np.testing.assert_array_equal(tiff.read(1), labels)
        assert tiff.nodata == 255
        assert tuple(tiff.transform)[:6] == PLACE.transform
        assert tiff.colormap(1)[1][:3] == LABELS.colors[1]
        assert tiff.tags()["classes"] == '["ground", "roof", "tree"]'
        assert tiff.tags()["key"] == "value"
        assert tiff.overviews(1)
        assert tiff.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.tif"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_of_turned_tiffs_are_upright(orientation: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    upright = read_image(tmp_path / "a.tif")
    with open_raster(tmp_path / "a.tif") as raster:
        assert (raster.height, raster.width) == upright.shape[:2]
        np.testing.assert_array_equal(raster.read((5, 33), (2, 39)), upright[5:33, 2:39])
