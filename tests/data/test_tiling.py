"""Tiles cover every pixel, can be joined by their names, and keep classes, splits and georeference."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from atrous.data.opening import open_dataset
from atrous.data.tiling import corners, tile
from atrous.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root, random = tmp_path / "mine", np.random.default_rng(0)
    for name in ("images/site", "masks/site", "splits"):
        (root / name).mkdir(parents=True)
    (root / "labels.toml").write_text('names = ["ground", "roof"]')
    tags = ImageFileDirectory_v2()
    tags[33550], tags[33922] = (0.5, 0.5, 0.0), (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0)
    tags.tagtype[33550] = tags.tagtype[33922] = 12
    for name in ("a", "b"):
        mask = np.zeros((70, 110), np.uint8)
        mask[5:20, 5:20] = 1
        pixels = random.integers(0, 255, (70, 110, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/site/{name}.tif", tiffinfo=tags)
        Image.fromarray(mask).save(root / f"masks/site/{name}.png")
    (root / "splits/train.txt").write_text("site/a\n")
    (root / "splits/val.txt").write_text("site/b\n")
    return root


def test_tiles_can_be_joined_by_their_names(folder: Path, tmp_path: Path) -> None:
    done = tile(f"folder:{folder}", tmp_path / "out", size=32, overlap=8)
    assert done.splits == {"train": 15, "val": 15}
    before, after = open_dataset(f"folder:{folder}", "train")[0], open_dataset(f"folder:{tmp_path}/out", "train")
    image, mask = np.zeros_like(before.image), np.full_like(before.mask, 9)
    for sample, name in zip(after, (tmp_path / "out/splits/train.txt").read_text().split(), strict=True):
        top, left = map(int, re.fullmatch(r"site/a__y(\d+)_x(\d+)", name).groups())
        image[top : top + 32, left : left + 32] = sample.image
        mask[top : top + 32, left : left + 32] = sample.mask
    np.testing.assert_array_equal(image, before.image)
    np.testing.assert_array_equal(mask, before.mask)


def test_empty_tiles_are_thinned_and_those_with_objects_stay(folder: Path, tmp_path: Path) -> None:
    done = tile(f"folder:{folder}", tmp_path / "out", size=32, keep_empty=0.0)
    assert (done.splits, done.left_out) == ({"train": 1, "val": 1}, 22)
    assert "22 empty tiles left out" in done.text()


def test_the_georeference_is_kept(folder: Path, tmp_path: Path) -> None:
    tile(f"folder:{folder}", tmp_path / "out", size=40)
    lines = (tmp_path / "out/images/site/a__y000030_x000040.pgw").read_text().split()
    assert list(map(float, lines)) == [0.5, 0, 0, -0.5, 1000 + 40.5 * 0.5, 2000 - 30.5 * 0.5]


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (33, 70), (100, 64)])
def test_every_pixel_is_in_a_tile_and_neighbours_share_enough(shape: tuple[int, int]) -> None:
    seen = np.zeros(shape, int)
    found = list(corners(shape, 32, 8))
    for top, left in found:
        seen[top : top + 32, left : left + 32] += 1
        assert top + 32 <= max(shape[0], 32)
    assert seen.min() >= 1
    columns = sorted({left for _, left in found})
    assert all(after - before <= 24 for before, after in pairwise(columns))


def test_sizes_that_cannot_be_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiles of 32 pixels with 32 shared"):
        tile(f"folder:{folder}", tmp_path / "out", size=32, overlap=32)
