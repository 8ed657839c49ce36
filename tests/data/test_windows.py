"""Large rasters in training and evaluation: only windows are read, every pixel counts once."""

from pathlib import Path

import numpy as np
import pytest

import atrous.data.windows as windows
from atrous.data.augment import Augmentation
from atrous.data.balance import CopyPaste, class_presence
from atrous.data.dataset import Sample, region, subset, surrounded
from atrous.data.doctor.check import check, quick_check
from atrous.data.files.images import ImageError
from atrous.data.files.masks import MaskError
from atrous.data.files.rasters import TiffRaster, open_dataset
from atrous.data.loading import batches
from atrous.data.opening import open_dataset as open_data
from atrous.data.stats import measure
from atrous.data.windows import WindowedDataset, cells_of
from atrous.errors import DatasetError

pytest.importorskip("rasterio", reason="needs the extra geo")
SIDES = 300, 230


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of more than 20,000 pixels are large, in cells of 100 pixels."""
    for module in (windows, __import__("atrous.data.doctor.inspect", fromlist=["inspect"])):
        monkeypatch.setattr(module, "WHOLE", 20_000)
    monkeypatch.setattr(windows, "CELL", 100)
    monkeypatch.setattr(windows, "MARGIN", 16)
    monkeypatch.setattr(windows.cells_of, "__defaults__", (100,))


def write(path: Path, values: np.ndarray, **form: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": values.dtype.name}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with open_dataset(path, "w", driver="GTiff", **shape, **tiles, **form) as file:
        file.write(values)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """An image whose values say where they are, and a mask; the first rows were not measured."""
    rows, columns = np.indices(SIDES)
    image = np.stack([rows + 1, columns + 1, 1000 * (rows // 50)]).astype(np.uint16)
    mask = ((columns // 40) % 2).astype(np.uint8)
    mask[250:, 200:] = 2
    image[:, :10] = 0
    return image, mask


@pytest.fixture
def folder(scene: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    image, mask = scene
    for name in "ab":
        write(tmp_path / f"images/{name}.tif", image, nodata=0, photometric="minisblack")
        write(tmp_path / f"masks/{name}.tif", mask[None])
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train.txt").write_text("a\n")
    (tmp_path / "splits/val.txt").write_text("b\n")
    (tmp_path / "labels.toml").write_text('names = ["ground", "road", "roof"]\n')
    return tmp_path


def test_cells_cover_every_pixel_once(folder: Path, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    data = open_data(f"folder:{folder}", "train")
    assert isinstance(data, WindowedDataset)
    assert (data.name, len(data)) == ("folder:train (1 images in 6 windows)", 6)
    seen = np.zeros(SIDES, int)
    for index, (rows, columns) in enumerate(cells_of(SIDES)):
        cell, inner, wide = np.s_[slice(*rows), slice(*columns)], data[index], surrounded(subset(data, 6), index)
        seen[cell] += 1
        expected = np.where(np.arange(SIDES[0])[:, None] < 10, 255, mask)[cell]
        np.testing.assert_array_equal(inner.mask, expected)
        measured = expected != 255
        np.testing.assert_array_equal(inner.image[measured], np.moveaxis(image, 0, -1)[cell][measured])
        assert (wide.mask != 255).sum() == measured.sum()
        assert max(wide.mask.shape) > max(inner.mask.shape)
        assert (inner.absent is None) == measured.all()
    assert (seen == 1).all()
    found = measure(data)
    assert found.counts.pixels.sum() == 290 * 230
    assert found.channels is not None
    assert found.channels.absent == pytest.approx(10 / 300)
    assert found.channels.highest[:2].tolist() == [300, 230]


def test_a_training_reads_what_its_crops_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data(f"folder:{folder}", "train")
    read: list[int] = []
    stored = TiffRaster.read_stored

    def counting(self: TiffRaster, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        read.append((rows[1] - rows[0]) * (columns[1] - columns[0]))
        return stored(self, rows, columns)

    monkeypatch.setattr(TiffRaster, "read_stored", counting)
    crops = Augmentation(crop=64, scale=(1.0, 1.0), flip=False, fill=(0.0,) * 3, colored=False)
    stream = batches(data, crops, batch_size=6, seed=0)
    corners = set()
    for _ in range(3):
        images, masks, *_ = next(stream)
        for values, mask in zip(images.numpy().astype(int), masks.numpy(), strict=True):
            measured = mask < 255
            row, column = values[0] - 1, values[1] - 1
            np.testing.assert_array_equal(mask[measured & (row < 250)], ((column // 40) % 2)[measured & (row < 250)])
            corners.add((int(row[-1, 0]), int(column[-1, 0])))
    assert read == [64 * 64] * (2 * 18)  # the image and the mask of each crop
    assert len(corners) > 12  # anywhere, not only at the corners of cells
    again = next(batches(data, crops, batch_size=6, seed=0))
    np.testing.assert_array_equal(again.images.numpy(), next(batches(data, crops, batch_size=6, seed=0)).images.numpy())


def test_rare_classes_are_balanced_and_pasted_by_cell(folder: Path) -> None:
    data = open_data(f"folder:{folder}", "train")
    presence = class_presence(data)
    assert presence[:, 2].tolist() == [False, False, False, False, False, True]
    crops = Augmentation(crop=64, scale=(1.0, 1.0), fill=(0.0,) * 3, colored=False)
    paste = CopyPaste.of_rare_classes(crops, data, presence, 1.0)
    assert paste(region(data, 0), np.random.default_rng(0)).image.shape == (64, 64, 3)

    def own(sample: Sample, random: np.random.Generator) -> Sample:
        assert isinstance(sample.image, np.ndarray)  # augmentations of users see arrays
        return Sample(sample.image[:64, :64], sample.mask[:64, :64], sample.name)

    assert next(batches(data, own, batch_size=6, seed=0)).masks.shape == (6, 64, 64)


def test_masks_by_color_and_palette_mean_the_same_in_windows(
    folder: Path, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    expected = open_data(f"folder:{folder}", "val")[5].mask
    colors = np.array([(0, 0, 0), (200, 160, 90), (0, 150, 60)], np.uint8)
    write(folder / "masks/b.tif", np.moveaxis(colors[scene[1]], -1, 0), photometric="rgb")
    given = 'names = ["ground", "road", "roof"]\ncolors = [[0, 0, 0], [200, 160, 90], [0, 150, 60]]\n'
    (folder / "labels.toml").write_text(f'{given}encoding = "rgb"\n')
    np.testing.assert_array_equal(open_data(f"folder:{folder}", "val")[5].mask, expected)
    (folder / "labels.toml").write_text(given)
    with open_dataset(
        folder / "masks/b.tif", "w", driver="GTiff", count=1, height=300, width=230, dtype="uint8"
    ) as file:
        file.write(scene[1], 1)
        file.write_colormap(1, {label: (*map(int, color), 255) for label, color in enumerate(colors)})
    np.testing.assert_array_equal(open_data(f"folder:{folder}", "val")[5].mask, expected)
    np.save(folder / "masks/b.npy", scene[1])
    (folder / "masks/b.tif").unlink()
    np.testing.assert_array_equal(open_data(f"folder:{folder}", "val")[5].mask, expected)


def test_bad_large_files_are_named(folder: Path, scene: tuple[np.ndarray, np.ndarray]) -> None:
    assert not [finding for finding in check(f"folder:{folder}").findings if finding.severity == "error"]
    write(folder / "masks/b.tif", np.full((1, *SIDES), 7, np.uint8))
    (finding,) = (f for f in quick_check(f"folder:{folder}", ["train", "val"]) if f.severity == "error")
    assert finding.kind.value == "outside-classes"
    with pytest.raises(MaskError, match=r"b\.tif: value\(s\) 7 belong to no class"):
        open_data(f"folder:{folder}", "val")[5]
    write(folder / "masks/b.tif", scene[1][None, :200])
    with pytest.raises(DatasetError, match=r"b\.tif is .*300.* but its mask .*b\.tif is .*200.*; both must have the"):
        open_data(f"folder:{folder}", "val")[5]
    assert any(f.severity == "error" for f in quick_check(f"folder:{folder}", ["val"]))
    write(folder / "masks/b.tif", scene[1][None])
    path = folder / "images/b.tif"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ImageError, match=r"b\.tif: a damaged TIFF"):
        open_data(f"folder:{folder}", "val")[5]
