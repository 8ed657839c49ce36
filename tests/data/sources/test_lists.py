"""Lists and file names as other systems write them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.opening import open_dataset

from ..conftest import MakeFolder, draw


def test_two_links_to_one_image_have_masks_of_their_own(make_folder: MakeFolder) -> None:
    root = make_folder()
    for name in "ab":
        (root / f"images/{name}.png").unlink()
        (root / f"images/{name}.png").symlink_to("../photo.png")
    Image.fromarray(draw(0)[0]).save(root / "photo.png")
    data = open_dataset(f"folder:{root}", "train")
    assert [data[place].name for place in range(3)] == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(data[1].mask, draw(1)[1])
    assert [finding.kind for finding in check(f"folder:{root}").findings] == ["repeated-image"]


@pytest.mark.parametrize("line", ["x" * 300, "y/" * 3000, "a\0b"])
def test_a_line_that_no_file_can_have_is_a_finding(make_folder: MakeFolder, line: str) -> None:
    root = make_folder()
    with (root / "splits/train.txt").open("a") as file:
        file.write(f"\n{line}\n")
    assert [finding.kind for finding in check(f"folder:{root}").findings] == ["not-there"]


@pytest.mark.parametrize("line", ["one\\{}.png", "one/{}", "images\\one\\{}.png", "./one/{}.png", "images/one/{}.png"])
def test_lists_of_other_systems_are_read(make_folder: MakeFolder, line: str) -> None:
    root = make_folder()
    for folder in ("images", "masks"):
        (root / "new").mkdir()
        shutil.move(root / folder, root / "new/one")
        shutil.move(root / "new", root / folder)
    (root / "splits/train.txt").write_text("".join(f"{line.format(letter)}\r\n" for letter in "abc"))
    (root / "splits/val.txt").write_text("one/d")
    assert check(f"folder:{root}").findings == ()
    assert len(open_dataset(f"folder:{root}", "train")) == 3


@pytest.mark.parametrize("stored", ["e\u0301", "\u00e9"])
@pytest.mark.parametrize("listed", ["e\u0301", "\u00e9"])
def test_accents_may_be_stored_and_listed_otherwise(make_folder: MakeFolder, stored: str, listed: str) -> None:
    root = make_folder()
    (root / "images/a.png").rename(root / f"images/{stored}.png")
    (root / "masks/a.png").rename(root / f"masks/{listed}.png")
    (root / "splits/train.txt").write_text(f"{listed}\nb\nc\n", encoding="utf-8")
    assert check(f"folder:{root}").findings == ()


def voc(root: Path, listed: str, stored: str) -> str:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(root / f"JPEGImages/{stored}.jpg")
    Image.new("L", (8, 6)).save(root / f"SegmentationClass/{stored}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text(f"{listed}\n", encoding="utf-8")
    (root / "ImageSets/Segmentation/._train.txt").write_bytes(b"\0\5\x16\7")
    return f"voc:{root}"


@pytest.mark.parametrize(
    ("listed", "stored"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("\\JPEGImages\\a.jpg \\SegmentationClass\\a.png", "a"),
        ("/JPEGImages/a.jpg /SegmentationClass/a.png", "a"),
    ],
)
def test_voc_lists_of_other_systems_are_read(tmp_path: Path, listed: str, stored: str) -> None:
    spec = voc(tmp_path, listed, stored)
    assert len(open_dataset(spec, "train")) == 1
    assert check(spec, ["train"]).others() == []


def test_files_that_are_not_images_are_not_read_as_images(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 6)).save(tmp_path / folder / "x.png")
    (tmp_path / "train/x.json").write_text("{}")
    (tmp_path / "train/x.txt").touch()
    (tmp_path / "train/._x.png").touch()
    (tmp_path / "trainannot/._x.png").touch()
    (tmp_path / "train.txt").write_text("train/x.png trainannot/x.png\n")
    (tmp_path / "._train.txt").touch()
    assert open_dataset(f"camvid:{tmp_path}", "train")[0].name == "x.png"
    assert not [f for f in check(f"camvid:{tmp_path}", ["train"]).findings if f.kind == "extra-mask"]


def test_hidden_files_beside_images_are_skipped(tmp_path: Path) -> None:
    for folder in ("images", "annotations"):
        suffix = "jpg" if folder == "images" else "png"
        (tmp_path / folder / "training").mkdir(parents=True)
        Image.new("L", (8, 6), 1).save(tmp_path / folder / f"training/ADE_train_1.{suffix}")
        (tmp_path / folder / f"training/._ADE_train_1.{suffix}").write_bytes(os.urandom(16))
    assert len(open_dataset(f"ade20k:{tmp_path}", "train")) == 1
    assert not [f for f in check(f"ade20k:{tmp_path}", ["train"]).findings if f.kind == "extra-mask"]
