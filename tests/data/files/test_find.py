"""Finding images: by their names, through links, and without ever going round in circles."""

from pathlib import Path

import pytest
from PIL import Image

from atrous.data.files.find import as_written, find_images, is_file


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere/photo.png")
    return tmp_path / "elsewhere/photo.png"


def names(*inputs: Path) -> list[str]:
    return [image.relative.as_posix() for image in find_images(inputs)]


def test_two_links_to_one_file_are_two_images(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).symlink_to(photo)
    assert names(tmp_path / "images") == ["a.png", "b.png"]
    assert names(tmp_path / "images", tmp_path / "images/a.png", tmp_path / "images/../images/b.png") == [
        "a.png",
        "b.png",
    ]


def test_two_links_to_one_folder_are_two_folders(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("one", "two"):
        (tmp_path / "images" / name).symlink_to(photo.parent)
    assert names(tmp_path / "images") == ["one/photo.png", "two/photo.png"]


def test_links_that_lead_back_are_not_followed(tmp_path: Path, photo: Path) -> None:
    (photo.parent / "back").symlink_to(tmp_path)
    (photo.parent / "itself").symlink_to("itself")
    (tmp_path / "here").symlink_to(".")
    assert names(tmp_path) == ["elsewhere/photo.png"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "../" * 2000])
def test_a_name_that_no_file_can_have_is_not_a_file(tmp_path: Path, name: str) -> None:
    assert not is_file(tmp_path / name)


def test_a_name_is_found_however_its_accents_are_stored(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.png").touch()
    assert as_written(tmp_path / "caf\u00e9.png").name == "cafe\u0301.png"
    assert as_written(tmp_path / "th\u00e9.png").name == "th\u00e9.png"
