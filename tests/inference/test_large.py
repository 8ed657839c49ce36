"""Rasters from file to file: place, nodata, names and areas are kept; a run that was killed goes on; bad files fail
alone.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import atrous.inference.large as large_module
from atrous.data.files.images import DecodedImage
from atrous.data.files.rasters import open_dataset
from atrous.inference.batch import predict_files
from atrous.inference.large import Large
from atrous.inference.predictor import Predictor
from atrous.inference.results import OutputOptions
from atrous.inference.tiles import Tiling
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
TILES = Large(Tiling(129, 64))
PLACE = (0.2, 0.0, 400000.0, 0.0, -0.2, 5600000.0)


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    """A random network with image pooling."""
    torch.manual_seed(1)
    options = {"rates": [1], "channels": 16, "low_level_channels": 8}
    return create_model("deeplabv3plus", backbone="test_resnet", num_classes=4, pretrained=False, **options).eval()


def write_raster(path: Path, bands: int = 3) -> Path:
    """200 × 330 pixels of UTM zone 32, of which the first 20 rows were not measured."""
    random = np.random.default_rng(0)
    values = random.integers(1, 256, (bands, 25, 33), np.uint8).repeat(8, 1).repeat(10, 2)
    values[:, :20] = 0
    form = {"driver": "GTiff", "height": 200, "width": 330, "count": bands, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", **form, crs="EPSG:32632", transform=rasterio.Affine(*PLACE)) as file:
        file.write(values)
    return path


def read_mask(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        assert tuple(file.transform)[:6] == PLACE
        assert file.crs.to_epsg() == 32632
        return np.asarray(file.read(1))


def test_place_nodata_areas_and_outlines(model: SegmentationModel, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "city.tif")
    outputs = OutputOptions(overlays=True, json=True, polygons="geojson")
    large = Large(TILES.tiling, (3, 2, 1))
    report = predict_files(model, [path], tmp_path / "out", outputs=outputs, large=large)
    assert report.failed == ()
    names = ["city.geojson", "city.json", "city.overlay.jpg", "city.tif"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    mask = read_mask(tmp_path / "out/city.tif")
    assert (mask[:20] == 255).all()
    assert (mask[20:] < 4).all()
    areas = json.loads((tmp_path / "out/city.json").read_text())
    assert {c["label"]: c["pixels"] for c in areas["classes"]} == {
        int(label): int(count) for label, count in zip(*np.unique(mask[20:], return_counts=True), strict=True)
    }
    outlines = json.loads((tmp_path / "out/city.geojson").read_text())["features"]
    assert sum(f["properties"]["area"] for f in outlines) == pytest.approx((mask < 255).sum() * 0.04)
    again = predict_files(model, [tmp_path / "out", path], tmp_path / "out", resume=True, outputs=outputs, large=large)
    assert (again.kept, again.failed) == (1, ())


def test_one_tile_gives_the_labels_of_an_ordinary_image(model: SegmentationModel, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "city.tif")
    predict_files(model, [path], tmp_path / "out")
    with rasterio.open(path) as file:
        image = np.ascontiguousarray(np.moveaxis(file.read(), 0, -1))
    expected = Predictor(model).labels(image[None])[0]
    np.testing.assert_array_equal(read_mask(tmp_path / "out/city.tif")[20:], expected[20:])
    np.save(tmp_path / "city.npy", image)
    report = predict_files(model, [tmp_path / "city.npy"], tmp_path / "arrays")
    assert [done.mask.name for done in report.done] == ["city.png"]


def test_a_killed_run_goes_on(model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "city.tif")
    predict_files(model, [path], tmp_path / "whole", large=TILES)
    append = large_module.LabelStore.append

    def die(self: large_module.LabelStore, labels: np.ndarray) -> None:
        append(self, labels)
        if self.rows >= 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(large_module.LabelStore, "append", die)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, [path], tmp_path / "out", large=TILES)
    monkeypatch.setattr(large_module.LabelStore, "append", append)
    assert not (tmp_path / "out/city.tif").exists()
    report = predict_files(model, [path], tmp_path / "out", large=TILES)
    assert any("an earlier run is continued from row 1" in note for note in report.notes)
    np.testing.assert_array_equal(read_mask(tmp_path / "out/city.tif"), read_mask(tmp_path / "whole/city.tif"))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["city.tif"]


def test_bad_files_fail_alone(model: SegmentationModel, tmp_path: Path) -> None:
    good, cut, two = (write_raster(tmp_path / f"{name}.tif", n) for name, n in (("a", 3), ("b", 3), ("c", 2)))
    cut.write_bytes(cut.read_bytes()[:150_000])
    report = predict_files(model, [good, cut, two], tmp_path / "out", large=TILES)
    assert [done.path for done in report.done] == [good]
    reasons = {failed.path.name: failed.reason for failed in report.failed}
    assert "a damaged TIFF (rows" in reasons["b.tif"]
    assert "2 bands, expected band 3 for a network of 3 channels" in reasons["c.tif"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_images_in_memory_are_cut_where_asked(model: SegmentationModel) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 330, 3), np.uint8)
    predictor = Predictor(model)
    found = predictor.segment(DecodedImage(image), large=TILES)
    assert found.labels.shape == (200, 330)
    assert found.notes[0].startswith(
        "labelled in tiles of 129 pixels that overlap by 64; this network looks at the whole"
    )


def test_ordinary_images_have_outlines_and_bands_too(model: SegmentationModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    path, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(pixels).save(path)
    outputs = OutputOptions(polygons="gpkg")
    predict_files(model, [path], out, outputs=outputs, large=Large(bands=(3, 2, 1)))
    assert sorted(file.name for file in out.iterdir()) == ["a.gpkg", "a.png"]
    expected = Predictor(model).labels(np.ascontiguousarray(pixels[None, ..., ::-1]))[0]
    with Image.open(out / "a.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected)
    (out / "a.gpkg").unlink()
    runs = [
        predict_files(model, [path], out, outputs=outputs, large=Large(bands=(3, 2, 1)), resume=True) for _ in range(2)
    ]
    assert [run.kept for run in runs] == [0, 1]
    (failed,) = predict_files(model, [path], tmp_path / "more", large=Large(bands=(1, 2, 4))).failed
    assert "3 bands, expected band 4 for a network of 3 channels" in failed.reason


def test_outlines_replace_no_other_file(model: SegmentationModel, tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "city.tif")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    for name in ("city", "a"):
        (tmp_path / f"out/{name}.geojson").write_text("mine")
    outputs = OutputOptions(polygons="geojson")
    report = predict_files(model, [raster, tmp_path / "a.png"], tmp_path / "out", outputs=outputs)
    assert len(report.failed) == 2
    assert all("exists and is not a result of this image" in failed.reason for failed in report.failed)
    assert {file.read_text() for file in (tmp_path / "out").iterdir()} == {"mine"}


def test_a_longest_side_shrinks_for_the_network_and_masks_stay_large(model: SegmentationModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    predictor = Predictor(model)
    found = predictor.segment(DecodedImage(pixels), large=Large(longest_side=320))
    assert found.labels.shape == (480, 640)
    small = predictor.labels(cv2.resize(pixels, (320, 240), interpolation=cv2.INTER_AREA)[None])[0]
    agree = (found.labels.reshape(240, 2, 320, 2) == small[:, None, :, None]).mean()
    assert len(np.unique(small)) > 1
    assert agree > 0.97  # labels change between the small image's pixels
    whole = predictor.segment(DecodedImage(pixels)).labels
    np.testing.assert_array_equal(predictor.segment(DecodedImage(pixels), large=Large(longest_side=640)).labels, whole)
    report = predict_files(model, [write_raster(tmp_path / "a.tif")], tmp_path / "o", large=Large(longest_side=9))
    assert "are not shrunk (--longest-side)" in report.failed[0].reason


def test_networks_of_other_channels_read_files(tmp_path: Path) -> None:
    torch.manual_seed(1)
    options = {"rates": [1], "channels": 16, "low_level_channels": 8, "image_pooling": False}
    four, one = (
        Predictor(create_model("deeplabv3plus", backbone="test_resnet", num_classes=3, in_channels=n, **options))
        for n in (4, 1)
    )
    values = np.random.default_rng(0).integers(0, 256, (64, 96, 4), np.uint8)
    form = {"driver": "GTiff", "height": 64, "width": 96, "count": 4, "dtype": "uint8"}
    with open_dataset(tmp_path / "a.tif", "w", **form) as file:
        file.write(np.moveaxis(values, -1, 0))
    np.save(tmp_path / "b.npy", values)
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(values[..., :3]).save(tmp_path / "colour.png")
    files = [tmp_path / name for name in ("a.tif", "b.npy", "colour.png")]
    report = predict_files(four.network.model, files, tmp_path / "four")
    expected = four.labels(values[None])[0]
    assert len(np.unique(expected)) > 1
    for name in "ab":
        with Image.open(tmp_path / f"four/{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), expected)
    assert "3 bands, expected band 4 for a network of 4 channels" in report.failed[0].reason
    report = predict_files(one.network.model, [tmp_path / "grey.png", files[2]], tmp_path / "one")
    with Image.open(tmp_path / "one/grey.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), one.labels(values[None, ..., :1])[0])
    assert "an image in colour, and the network takes 1 channel" in report.failed[0].reason


def test_a_full_disk_fails_that_image_alone(
    model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, other = (write_raster(tmp_path / f"{name}.tif") for name in "ab")
    append = large_module.LabelStore.append

    def full(self: large_module.LabelStore, labels: np.ndarray) -> None:
        if self.folder.name == ".b.labels" and self.rows:
            raise OSError(28, "No space left on device")
        append(self, labels)

    monkeypatch.setattr(large_module.LabelStore, "append", full)
    report = predict_files(model, [good, other], tmp_path / "out", large=TILES)
    assert [done.path for done in report.done] == [good]
    assert "No space left on device" in report.failed[0].reason
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.tif"]
    monkeypatch.setattr(large_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=60_000))
    report = predict_files(model, [good], tmp_path / "more", large=TILES)
    assert "200 × 330 pixels, whose labels need 0.0 GB on the disk" in report.failed[0].reason
    assert list((tmp_path / "more").iterdir()) == []


def test_a_turned_place_without_a_reference_system_is_kept(model: SegmentationModel, tmp_path: Path) -> None:
    place = rasterio.Affine(0.2, 0.1, 400000.0, 0.1, -0.2, 5600000.0)
    form = {"driver": "GTiff", "height": 40, "width": 60, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", **form, transform=place) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 40, 60), np.uint8))
    report = predict_files(model, [tmp_path / "a.tif"], tmp_path / "out", outputs=OutputOptions(polygons="geojson"))
    assert report.failed == ()
    assert "it names no coordinate reference system" in report.notes[0]
    with rasterio.open(tmp_path / "out/a.tif") as file:
        assert (file.transform, file.crs) == (place, None)
    outlines = json.loads((tmp_path / "out/a.geojson").read_text())["features"]
    assert sum(f["properties"]["area"] for f in outlines) == pytest.approx(40 * 60 * 0.05)


def test_probabilities_are_bands_of_bytes_that_say_their_scale(
    model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "city.tif")
    outputs = OutputOptions(probabilities=True)
    predict_files(model, [path], tmp_path / "whole", outputs=outputs)
    with rasterio.open(tmp_path / "whole/city.probabilities.tif") as file:
        stored, names, scales = file.read(), file.descriptions, file.scales
        assert (file.nodata, file.crs.to_epsg(), tuple(file.transform)[:6]) == (255, 32632, PLACE)
        assert "probability = value / 254" in file.tags()["values"]
    assert (names, scales) == (model.label_set.names, (1 / 254,) * 4)
    assert (stored[:, :20] == 255).all()
    with rasterio.open(path) as file:
        image = np.ascontiguousarray(np.moveaxis(file.read(), 0, -1))
    exact = Predictor(model).segment(DecodedImage(image), keep_probabilities=True).probabilities(full_size=True)
    assert np.abs(stored[:, 20:] / 254 - exact[:, 20:]).max() < 0.006  # half a step, and half precision

    append = large_module.LabelStore.append

    def die(self: large_module.LabelStore, labels: np.ndarray) -> None:
        if self.rows >= 60:  # after the probabilities of these rows, before their labels
            raise KeyboardInterrupt
        append(self, labels)

    predict_files(model, [path], tmp_path / "tiles", outputs=outputs, large=TILES)
    monkeypatch.setattr(large_module.LabelStore, "append", die)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, [path], tmp_path / "out", outputs=outputs, large=TILES)
    monkeypatch.setattr(large_module.LabelStore, "append", append)
    report = predict_files(model, [path], tmp_path / "out", outputs=outputs, large=TILES)
    assert any("an earlier run is continued from row" in note for note in report.notes)
    with (
        rasterio.open(tmp_path / "tiles/city.probabilities.tif") as once,
        rasterio.open(tmp_path / "out/city.probabilities.tif") as resumed,
    ):
        np.testing.assert_array_equal(once.read(), resumed.read())
    kept = predict_files(model, [tmp_path / "out", path], tmp_path / "out", outputs=outputs, large=TILES, resume=True)
    assert (kept.kept, kept.failed) == (1, ())
