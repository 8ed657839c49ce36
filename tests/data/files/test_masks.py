"""Masks: every way they are written becomes labels, and what can't be read says which file and how to mend it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.files.masks import MaskError, MaskFile, MaskForm, read_mask
from atrous.label_sets import VOC
from atrous.labels import IGNORE, VOID_COLOR, LabelSet, encode_mask

LABELS = LabelSet(("floor", "cup", "hand"), ((0, 0, 0), (200, 30, 30), (30, 200, 30)))
INDEX, RGB = MaskForm(LABELS), MaskForm(LABELS, "rgb")
MASK = np.array([[0, 1, 2], [2, IGNORE, 1]], np.uint8)


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_palette_mask_gives_its_values_not_its_colours(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    file.write_bytes(encode_mask(MASK, LABELS))
    np.testing.assert_array_equal(read_mask(MaskFile(file), INDEX), MASK)


def test_grey_mask_gives_its_values(tmp_path: Path) -> None:
    read = read_mask(MaskFile(write(tmp_path / "m.png", MASK)), INDEX)
    np.testing.assert_array_equal(read, MASK)
    assert read.dtype == np.uint8


def test_1_bit_mask_is_classes_0_and_1(tmp_path: Path) -> None:
    file = write(tmp_path / "m.png", MASK == 1)
    with Image.open(file) as image:
        assert image.mode == "1"
    np.testing.assert_array_equal(read_mask(MaskFile(file), INDEX), MASK == 1)


def test_16_bit_mask_of_small_values_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "m.png", MASK.astype(np.uint16))
    np.testing.assert_array_equal(read_mask(MaskFile(file), INDEX), MASK)


@pytest.mark.parametrize(
    ("name", "pixels"), [("m.png", np.uint16([[0, 65535]])), ("m.tif", np.float32([[0.5, np.nan]]))]
)
def test_values_beyond_8_bits_say_how_to_write_the_mask(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    with pytest.raises(MaskError, match=rf"{name}.* values from .*8-bit PNG of class numbers, void as 255"):
        read_mask(MaskFile(write(tmp_path / name, pixels)), INDEX)


def test_rgb_mask_by_declared_colours_and_void(tmp_path: Path) -> None:
    colours = np.array([*LABELS.colors, (1, 2, 3)], np.uint8)
    pixels = colours[np.array([[0, 1, 2], [2, 3, 1]])]
    file = write(tmp_path / "m.png", pixels)
    np.testing.assert_array_equal(read_mask(MaskFile(file), MaskForm(LABELS, "rgb", ignore=((1, 2, 3),))), MASK)
    pixels[1, 1] = VOID_COLOR
    np.testing.assert_array_equal(read_mask(MaskFile(write(file, pixels)), RGB), MASK)


def test_rgb_mask_with_a_strange_colour_names_it(tmp_path: Path) -> None:
    file = write(tmp_path / "m.png", np.uint8([[[9, 8, 7], [0, 0, 0]]]))
    with pytest.raises(MaskError, match=r"m\.png: 1 colour.*\[9, 8, 7\].*labels\.toml"):
        read_mask(MaskFile(file), RGB)


def test_colours_that_were_not_declared_say_what_to_declare(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r'm\.png: an image of mode RGB.*encoding = "rgb"'):
        read_mask(MaskFile(write(tmp_path / "m.png", np.zeros((2, 2, 3), np.uint8))), INDEX)


def test_values_outside_the_classes_are_listed_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"m\.png: value\(s\) 3, 9 .*expected 0–2 or 255.*ignore = \[3, 9\]"):
        read_mask(MaskFile(write(tmp_path / "m.png", np.uint8([[0, 3, 9]]))), INDEX)


def test_values_can_be_ignored(tmp_path: Path) -> None:
    file = write(tmp_path / "m.png", np.uint8([[0, 7, 2, 255]]))
    np.testing.assert_array_equal(read_mask(MaskFile(file), MaskForm(LABELS, ignore=(7, 2))), [[0, 255, 255, 255]])


def test_classes_can_have_values_of_their_own(tmp_path: Path) -> None:
    form = MaskForm(LABELS, values=(0, 128, 255), ignore=(7,))
    file = write(tmp_path / "m.png", np.uint8([[0, 128, 255, 7]]))
    np.testing.assert_array_equal(read_mask(MaskFile(file), form), [[0, 1, 2, 255]])
    with pytest.raises(MaskError, match=r"value\(s\) 1 belong to no class; expected 0, 7, 128 or 255"):
        read_mask(MaskFile(write(file, np.uint8([[0, 1]]))), form)


def test_a_palette_mask_can_be_read_by_its_colours(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    file.write_bytes(encode_mask(MASK, LABELS))
    np.testing.assert_array_equal(read_mask(MaskFile(file), RGB), MASK)


def test_255_classes_use_every_value_but_the_last(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(
        read_mask(MaskFile(write(tmp_path / "m.png", every)), MaskForm(LabelSet.numbered(255))), every
    )


@pytest.mark.parametrize("name", ["m.jpg", "m.png"])
def test_jpeg_mask_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, MASK, format="JPEG")
    with pytest.raises(MaskError, match=rf"{name}: a JPEG image.*as PNG"):
        read_mask(MaskFile(file), INDEX)


@pytest.mark.parametrize("cut", [0, 10, 60, -30])
def test_damaged_or_missing_mask_names_the_file(tmp_path: Path, cut: int) -> None:
    with pytest.raises(MaskError, match=r"m\.png: there is no such mask"):
        read_mask(MaskFile(tmp_path / "m.png"), MaskForm(VOC))
    whole = encode_mask(np.random.default_rng(0).integers(0, 21, (40, 40), np.uint8), VOC)
    (tmp_path / "m.png").write_bytes(whole[:cut])
    with pytest.raises(MaskError, match=r"m\.png: not a readable image .*save it again"):
        read_mask(MaskFile(tmp_path / "m.png"), MaskForm(VOC))
