"""Images as they are stored: channels and depth are found, kept and checked; what was not measured is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.image_form import ImageForm
from atrous.data.files.images import ImageError, open_image
from atrous.data.files.masks import MaskError, MaskFile
from atrous.data.files.raster_values import EightBits, StoredValues
from atrous.data.files.rasters import open_dataset
from atrous.data.files.stored import find_form, open_stored, read_as
from atrous.errors import InputError

pytest.importorskip("rasterio", reason="needs the extra geo")
tifffile = pytest.importorskip("tifffile", reason="needs the extra geo")
FIVE = ImageForm(5, "uint16", color=False)


def write(path: Path, values: np.ndarray, **form: object) -> Path:
    bands, height, width = values.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": values.dtype.name}
    with open_dataset(path, "w", driver="GTiff", **shape, **form) as file:
        file.write(values)
    return path


@pytest.fixture
def five() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 10_000, (5, 12, 9)).astype(np.uint16)


@pytest.mark.parametrize(
    ("bands", "dtype", "photometric", "form"),
    [
        (3, "uint8", "rgb", ImageForm()),
        (1, "uint8", "minisblack", ImageForm()),
        (3, "uint16", "rgb", ImageForm()),
        (1, "uint16", "minisblack", ImageForm(1, "uint16", color=False)),
        (3, "uint16", "minisblack", ImageForm(3, "uint16", color=False)),
        (2, "uint8", "minisblack", ImageForm(2, "uint8", color=False)),
        (5, "int16", "minisblack", ImageForm(5, "int16", color=False)),
        (2, "float64", "minisblack", ImageForm(2, "float32", color=False)),
    ],
)
def test_bands_that_are_not_colors_are_found(
    tmp_path: Path, bands: int, dtype: str, photometric: str, form: ImageForm
) -> None:
    path = write(tmp_path / "a.tif", np.ones((bands, 4, 6), dtype), photometric=photometric)
    assert find_form(path) == form
    np.save(tmp_path / "a.npy", np.ones((4, 6, bands), dtype))
    found = find_form(tmp_path / "a.npy")
    assert (found.channels, found.dtype) == (bands, "float32" if dtype == "float64" else dtype)


def test_values_are_kept_and_unmeasured_pixels_are_known(five: np.ndarray, tmp_path: Path) -> None:
    five[:, :2] = 0
    path = write(tmp_path / "a.tif", five, nodata=0)
    image = read_as(path, FIVE)
    assert (image.pixels.dtype, image.pixels.shape) == (np.uint16, (12, 9, 5))
    np.testing.assert_array_equal(image.pixels[2:], np.moveaxis(five, 0, -1)[2:])
    assert image.absent is not None
    np.testing.assert_array_equal(image.absent, np.arange(12)[:, None].repeat(9, 1) < 2)
    np.testing.assert_array_equal(image.pixels[0, 0], np.rint(five[:, 2:].mean((1, 2))))
    values = five.astype(np.float32)
    values[:, 0], values[3, 5] = np.nan, np.inf
    np.save(tmp_path / "a.npy", np.moveaxis(values, 0, -1))
    image = read_as(tmp_path / "a.npy", ImageForm(5, "float32", color=False))
    assert np.isfinite(image.pixels).all()
    assert image.absent is not None
    assert image.absent.sum() == 9  # a pixel with some channels was measured


def test_an_alpha_band_is_no_channel_unless_it_is_declared(five: np.ndarray, tmp_path: Path) -> None:
    five[4, :3] = 0
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(five, 0, -1), photometric="minisblack", extrasamples=[0, 0, 0, 2])
    form = ImageForm(4, "uint16", color=False)
    assert find_form(path) == form
    image = read_as(path, form)
    assert image.absent is not None
    assert (image.absent.sum(), image.pixels.shape[2]) == (27, 4)
    assert read_as(path, FIVE).absent is None


def test_pngs_keep_their_depth_where_it_is_declared(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (7, 5, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    np.testing.assert_array_equal(
        read_as(tmp_path / "a.png", ImageForm(3, "uint16", color=False)).pixels, values[..., ::-1]
    )
    assert find_form(tmp_path / "a.png").is_rgb


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (ImageForm(4, "uint16", color=False), r"5 channels of uint16, expected 4 channels of uint16; store the bands"),
        (ImageForm(5, "uint8", color=False), r"5 channels of uint16, expected 5 channels of uint8; convert it .*Byte"),
    ],
)
def test_other_images_are_refused_in_words(form: ImageForm, message: str, five: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.tif: " + message):
        read_as(write(tmp_path / "a.tif", five), form)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "a.tif").write_bytes(b"II*\0no image")
    for name in ("a.png", "a.tif", "missing.tif", "missing.npy"):
        assert find_form(tmp_path / name).is_rgb
        with pytest.raises(ImageError, match=name), open_stored(tmp_path / name):
            pass
    for channels, dtype, color in ((0, "uint8", False), (3, "int64", False), (5, "uint16", True)):
        with pytest.raises(InputError, match=r"expected|can't begin"):
            ImageForm(channels, dtype, color)


def test_what_is_shown_of_deep_images_is_stretched() -> None:
    ramp = np.linspace(-4000, 9000, 10_000, dtype=np.float32).reshape(100, 100, 1)
    shown = shown_pixels(ramp)
    assert (shown.shape, shown.dtype, shown.min(), shown.max()) == ((100, 100, 3), np.uint8, 0, 255)
    assert abs(int(shown[50, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("nodata", [None, 0])
def test_missing_tiles_are_refused_or_nodata_never_read(nodata: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    form = {"driver": "GTiff", "count": 3, "height": 96, "width": 64, "dtype": "uint8", "photometric": "rgb"}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True, "nodata": nodata}
    with open_dataset(path, "w", **form, **tiles) as file:
        file.write(np.full((3, 32, 64), 200, np.uint8), window=((0, 32), (0, 64)))
    with pytest.raises(ImageError, match=r"a\.tif: a TIFF that lacks 4 of its tiles .*gdal_translate"):
        open_image(path)
    with pytest.raises(MaskError, match="lacks 4 of its tiles"):
        MaskFile(path).open()
    with open_stored(path) as raster:
        if nodata is None:
            message = r"a\.tif: 4 tiles are missing .*row 32, column 0, on.*nodata value.*gdal_edit.py -a_nodata"
            for values in (lambda: StoredValues(raster, ImageForm(), "a"), lambda: EightBits(raster, 3, None, "a")):
                with pytest.raises(ImageError, match=message):
                    values()
            return
        read, absent = StoredValues(raster, ImageForm(), "a").read_measured((0, 96), (0, 64))
        np.testing.assert_array_equal(absent, np.arange(96)[:, None].repeat(64, 1) >= 32)
        assert (read == 200).all()


def test_missing_strips_of_other_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((40, 30), 9, np.uint8), rowsperstrip=10, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+b") as file:
        offsets = list(file.pages[0].tags["StripOffsets"].value)
        file.pages[0].tags["StripOffsets"].overwrite([*offsets[:-1], 0])
    with pytest.raises(ImageError, match="lacks 1 of its tiles"):
        open_image(path)
