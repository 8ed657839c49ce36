"""Masks: every way they are written becomes labels, and what can't be read says which file and how to mend it."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.inspect import glance
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, MaskFile, read_mask
from atrous.data.files.palettes import resorted
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
    with pytest.raises(MaskError, match=rf"{name}: compressed as JPEG.*as PNG"):
        read_mask(MaskFile(file), INDEX)


@pytest.mark.parametrize("cut", [0, 10, 60, -30])
def test_damaged_or_missing_mask_names_the_file(tmp_path: Path, cut: int) -> None:
    with pytest.raises(MaskError, match=r"m\.png: there is no such mask"):
        read_mask(MaskFile(tmp_path / "m.png"), MaskForm(VOC))
    whole = encode_mask(np.random.default_rng(0).integers(0, 21, (40, 40), np.uint8), VOC)
    (tmp_path / "m.png").write_bytes(whole[:cut])
    with pytest.raises(MaskError, match=r"m\.png: (not a readable|a damaged) image .*(save|download) it again"):
        read_mask(MaskFile(tmp_path / "m.png"), MaskForm(VOC))


LOSSY = {
    "m.jpg": {},
    "jpeg.tif": {"compression": "jpeg"},
    "m.jp2": {"irreversible": True, "quality_mode": "rates", "quality_layers": [20]},
    "exact.jp2": {},
    "m.webp": {"quality": 80},
    "m.avif": {},
}
EXACT = {
    "m.png": {},
    "m.tif": {"compression": "tiff_lzw"},
    "raw.tif": {},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "m.bmp": {},
    "m.pgm": {},
    "m.gif": {"optimize": False},
}


@pytest.mark.parametrize("suffix", ["as it is", ".png"])
@pytest.mark.parametrize(("name", "options"), LOSSY.items())
def test_a_lossy_codec_is_refused_whatever_the_suffix(tmp_path: Path, name: str, options: dict, suffix: str) -> None:
    file = write(tmp_path / name, np.repeat(np.repeat(MASK % 255, 16, 0), 16, 1), **options)
    if suffix == ".png":
        file = file.rename(file.with_suffix(".png"))
    with pytest.raises(MaskError, match=rf"{file.name}: compressed as .*export the mask again as PNG"):
        read_mask(MaskFile(file), INDEX)
    assert glance(file, MaskFile(file)).mask.lossy


@pytest.mark.parametrize(("name", "options"), EXACT.items())
def test_an_exact_codec_is_read(tmp_path: Path, name: str, options: dict) -> None:
    file = write(tmp_path / name, MASK, **options)
    np.testing.assert_array_equal(read_mask(MaskFile(file), INDEX), MASK)
    assert not glance(file, MaskFile(file)).mask.lossy


def test_a_lossless_webp_of_colours_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "m.webp", LABELS.colorize(MASK), lossless=True)
    np.testing.assert_array_equal(read_mask(MaskFile(file), RGB), MASK)


def few_bits(values: np.ndarray, bits: int, kind: int = 0) -> bytes:
    """A PNG of a few bits per pixel, grey (0) or with a palette (3)."""
    per_byte = 8 // bits
    rows = b""
    for row in np.pad(values, ((0, 0), (0, -values.shape[1] % per_byte))).reshape(len(values), -1, per_byte):
        rows += b"\0" + bytes(sum(int(v) << 8 - bits * (at + 1) for at, v in enumerate(group)) for group in row)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    palette = [(b"PLTE", bytes(range(3 * 2**bits)))] if kind == 3 else []
    chunks = [(b"IHDR", header), *palette, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("kind", [0, 3])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_few_bits_are_the_classes(tmp_path: Path, bits: int, kind: int) -> None:
    values = np.arange(40, dtype=np.uint8).reshape(5, 8) % 2**bits
    (tmp_path / "m.png").write_bytes(few_bits(values, bits, kind))
    form = MaskForm(LabelSet.numbered(2**bits))
    np.testing.assert_array_equal(read_mask(MaskFile(tmp_path / "m.png"), form), values)


@pytest.mark.parametrize(("bits", "step"), [(1, 255), (2, 85), (4, 17)])
def test_values_of_few_bits_are_what_they_are_shown_as_where_only_these_are_declared(
    tmp_path: Path, bits: int, step: int
) -> None:
    labels = np.arange(40, dtype=np.uint8).reshape(5, 8) % 2**bits
    (tmp_path / "m.png").write_bytes(few_bits(labels, bits))
    form = MaskForm(LabelSet.numbered(2**bits), values=tuple(range(0, 256, step)))
    np.testing.assert_array_equal(read_mask(MaskFile(tmp_path / "m.png"), form), labels)
    write(tmp_path / "m.png", labels * np.uint8(step))
    np.testing.assert_array_equal(read_mask(MaskFile(tmp_path / "m.png"), form), labels)


def test_a_plain_pgm_of_a_small_maximum_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.pgm").write_text("P2 3 1 2\n0 1 2\n")
    np.testing.assert_array_equal(read_mask(MaskFile(tmp_path / "m.pgm"), INDEX), [[0, 1, 2]])


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("labels", [(0, 2), (0, 1, 20), (2, 5), (20,)])
def test_a_palette_that_was_sorted_anew_is_refused(tmp_path: Path, labels: tuple[int, ...], void: bool) -> None:
    form = MaskForm(VOC, known_colors=True)
    colors = [VOC.colors[label] for label in labels] + [VOID_COLOR] * void
    image = Image.fromarray(np.arange(len(colors), dtype=np.uint8)[None])
    image.putpalette(np.uint8(colors).tobytes())
    image.save(tmp_path / "m.png")
    with pytest.raises(MaskError, match=r"m\.png: its palette gives value . the colour of .*--fix NEW_FOLDER"):
        read_mask(MaskFile(tmp_path / "m.png"), form)


@pytest.mark.parametrize("form", [INDEX, MaskForm(LABELS, known_colors=True), MaskForm(VOC, known_colors=True)])
@pytest.mark.parametrize(
    "palette",
    [
        {0: (0, 0, 0), 1: (255, 255, 255), 2: (128, 128, 128)},
        {0: (0, 0, 0), 1: (255, 255, 255), 255: (0, 0, 0)},
        {0: (9, 9, 9), 1: (0, 0, 0), 2: (7, 1, 2)},
        {0: (0, 0, 0), 1: (0, 0, 0)},
        {value: (value, value, value) for value in (0, 1, 2, 255)},
    ],
)
def test_a_palette_for_viewing_shows_nothing(form: MaskForm, palette: dict[int, tuple[int, int, int]]) -> None:
    assert resorted(palette, form) is None
