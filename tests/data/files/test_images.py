"""Reading images: every mode, every way a file can be broken, and what a folder or a pattern stands for."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from atrous.data.files.exif import turn
from atrous.data.files.find import find_images
from atrous.data.files.images import DecodedImage, ImageError, decode_image, open_image, read_image, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return decode_image(encoded(image, kind, **options)).pixels


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)


def test_rgb_png_is_read_exactly_and_can_be_written_to() -> None:
    decoded = decode_image(encoded(Image.fromarray(RGB)))
    assert decoded.notes == ()
    np.testing.assert_array_equal(decoded.pixels, RGB)
    decoded.pixels[0, 0] = 0


def test_grey_is_repeated() -> None:
    np.testing.assert_array_equal(pixels_of(Image.fromarray(GREY)), np.repeat(GREY[..., None], 3, 2))


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False], [False, True]])
    assert pixels_of(Image.fromarray(bits)).tolist() == [[[255] * 3, [0] * 3], [[0] * 3, [255] * 3]]


def test_transparent_parts_are_laid_over_white_and_said_so() -> None:
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], np.uint8)
    decoded = decode_image(encoded(Image.fromarray(rgba)))
    assert decoded.pixels.tolist() == [[[200, 0, 0], [255, 255, 255], [244, 204, 204]]]
    assert decoded.notes == ("transparent parts are read as white",)


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    decoded = decode_image(encoded(Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)]))))
    np.testing.assert_array_equal(decoded.pixels, RGB)
    assert decoded.notes == ()


def test_grey_with_alpha_is_laid_over_white() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 1), 10), Image.fromarray(np.array([[255, 0]], np.uint8))])
    assert pixels_of(image).tolist() == [[[10] * 3, [255] * 3]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_palette_with_transparency_is_laid_over_white(transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([9, 8, 7, 50, 60, 70])
    assert pixels_of(image, transparency=transparency).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_a_transparent_color_of_an_rgb_png_is_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert pixels_of(image, transparency=(1, 2, 3)).tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_16_bits_keep_the_high_byte(kind: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 65536, shape, np.uint16)
    values.flat[:2] = 0, 65535
    data = cv2.imencode(kind, values)[1].tobytes()
    high = (values >> 8).astype(np.uint8)
    expected = high[..., ::-1] if values.ndim == 3 else np.repeat(high[..., None], 3, 2)
    np.testing.assert_array_equal(decode_image(data).pixels, expected)


def test_32_bit_grey_within_16_bits_is_read_like_16_bits() -> None:
    values = np.array([[0, 256, 65535]], np.int32)
    assert pixels_of(Image.fromarray(values), "TIFF")[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[-10, 0, 10]], np.float32), [0, 128, 255]),
        (np.array([[0, 2**20, 2**21]], np.int32), [0, 128, 255]),
    ],
)
def test_wider_ranges_are_stretched_and_said_so(values: np.ndarray, expected: list[int]) -> None:
    decoded = decode_image(encoded(Image.fromarray(values), "TIFF"))
    assert decoded.pixels[0, :, 0].tolist() == expected
    assert "are read as 0 to 255" in decoded.notes[0]


def test_color_tiff_of_floats_is_read_through_opencv() -> None:
    values = np.array([[[0, 0.5, 1], [1, 0, 0]]], np.float32)
    decoded = decode_image(cv2.imencode(".tiff", values)[1].tobytes())
    assert decoded.pixels.tolist() == [[[255, 128, 0], [0, 0, 255]]]


def test_cmyk_jpeg_has_the_colors_of_its_rgb() -> None:
    rgb = smooth()
    image = Image.fromarray(rgb).convert("CMYK")
    read = pixels_of(image, "JPEG", quality=100, subsampling=0)
    assert read.shape == rgb.shape
    assert np.abs(read.astype(int) - rgb).max() < 12


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(kind: str, orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(smooth()).convert(mode), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        stored = np.array(image.convert("RGB"))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.orientation == orientation
    if kind != "TIFF":  # which Pillow itself has turned
        np.testing.assert_array_equal(turn(stored, orientation), expected)
    assert (expected.shape[0] > expected.shape[1]) == (orientation >= 5)


def test_orientation_of_16_bit_grey_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(smooth()[..., 0].astype(np.uint16) << 8)
    np.testing.assert_array_equal(pixels_of(image, exif=exif)[..., 0], np.rot90(smooth()[..., 0], -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_broken_exif_is_no_reason_to_refuse(kind: str) -> None:
    data = encoded(Image.fromarray(smooth()), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    assert decode_image(data).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("kind", "words"), [("GIF", "3 frames"), ("WEBP", "3 frames"), ("TIFF", "3 pages"), ("PNG", "3 frames")]
)
def test_the_first_frame_is_read_and_said_so(kind: str, words: str) -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("white", "black", "red")]
    decoded = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert decoded.pixels.min() >= 250
    assert len(decoded.notes) == 1
    assert words in decoded.notes[0]


def test_a_second_image_in_a_phone_image_is_no_animation() -> None:
    image = Image.fromarray(smooth())
    decoded = decode_image(encoded(image, "MPO", save_all=True, append_images=[image.resize((8, 6))]))
    assert decoded.pixels.shape == (48, 64, 3)
    assert decoded.notes == ()


def test_plain_jpeg_equals_pillow(shared: Path) -> None:
    for path in sorted((shared / "data/VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[:40]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.array(image))


def test_a_large_image_is_read_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (400, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data).pixels.shape == (300, 400, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_image_beyond_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATROUS_DECODE_LIMIT_GB", "8e-7")
    with pytest.raises(ImageError, match=r"big\.png: 11×10 pixels, which take 8.8e-07 GB to decode"):
        decode_image(encoded(Image.new("L", (11, 10))), "big.png")


def cut(kind: str) -> bytes:
    data = encoded(Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)), kind)
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"hello, this is text", "not an image: it begins with b'hello"),
        (b"<!DOCTYPE html><p>404", "a web page"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS drawing"),
        (b"\xff\xd8\xff\xe0", "header is damaged"),
        (cut("JPEG"), "damaged image .*copy or download it again"),
        (cut("PNG"), "damaged image .*copy or download it again"),
        (cut("WEBP"), "damaged"),
        (cut("TIFF"), "damaged"),
        (cut("BMP"), "damaged image .*copy or download it again"),
    ],
)
def test_what_is_no_image_is_said_to_be_what_it_is(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=rf"^x\.jpg: .*{words}"):
        decode_image(data, "x.jpg")


@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]),
    st.integers(0, 10_000),
    st.binary(max_size=40),
    st.booleans(),
)
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_damaged_files_give_a_image_or_an_image_error(kind: str, at: int, patch: bytes, cut_off: bool) -> None:
    data = encoded(Image.fromarray(smooth(12, 16)), kind)
    at %= len(data)
    damaged = data[:at] + patch + (b"" if cut_off else data[at + len(patch) :])
    try:
        pixels = decode_image(damaged).pixels
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "cat.JPG").touch()
    with pytest.raises(ImageError, match=r"cat\.png: no such file; check the name \(there is cat\.JPG\)"):
        open_image(tmp_path / "cat.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a folder, expected an image"):
        open_image(tmp_path)


def test_an_opened_pillow_image_is_taken_too() -> None:
    decoded = to_rgb(Image.fromarray(GREY))
    assert isinstance(decoded, DecodedImage)
    np.testing.assert_array_equal(decoded.pixels[..., 2], GREY)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in [
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "._a.PNG",
        "sub/c.webp",
        "sub/deep/d.jpg",
        ".cache/e.jpg",
    ]:
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "album"


def relatives(*inputs: str | Path) -> list[str]:
    return [image.relative.as_posix() for image in find_images(inputs)]


def test_a_folder_is_searched_to_its_depths_and_keeps_its_tree(album: Path) -> None:
    assert relatives(album) == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpg"]


def test_a_file_named_by_itself_is_always_tried(album: Path) -> None:
    assert relatives(album / "notes.txt", album / "missing.jpg") == ["notes.txt", "missing.jpg"]
    assert all(image.explicit for image in find_images([album / "b.jpg"]))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("*", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpg"]),
        ("**/*.jpg", ["b.jpg", "sub/deep/d.jpg"]),
        ("s*/deep/?.jpg", ["sub/deep/d.jpg"]),
        ("sub/d*/*", ["deep/d.jpg"]),
    ],
)
def test_a_pattern_keeps_the_tree_below_its_fixed_part(album: Path, pattern: str, expected: list[str]) -> None:
    assert relatives(f"{album}/{pattern}") == expected


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(album: Path) -> None:
    (album / "shot [1].jpg").touch()
    assert relatives(album / "shot [1].jpg") == ["shot [1].jpg"]


def test_a_file_is_listed_once(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album.parent)
    assert relatives(album, "album/b.jpg", "album/*.jpg") == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpg"]


def test_links_to_folders_are_followed_once(album: Path) -> None:
    (album / "sub" / "loop").symlink_to(album)
    (album.parent / "outside").mkdir()
    (album.parent / "outside" / "f.jpg").touch()
    (album / "linked").symlink_to(album.parent / "outside")
    assert relatives(album) == ["a.PNG", "b.jpg", "linked/f.jpg", "sub/c.webp", "sub/deep/d.jpg"]


@pytest.mark.parametrize("make", [lambda a: a / ".cache", lambda a: f"{a}/*.gif"])
def test_nothing_found_says_what_was_looked_for(album: Path, make: Callable[[Path], str | Path]) -> None:
    (album / ".cache" / "e.jpg").unlink()
    with pytest.raises(ImageError, match=r"no image .*looked for files with the suffixes .*\.jpg"):
        find_images([make(album)])


def test_no_input_is_an_error() -> None:
    with pytest.raises(ImageError, match="name at least one image"):
        find_images([])


def test_sixteen_bits_of_which_few_are_used_are_noted(tmp_path: Path) -> None:
    for highest, notes in ((4095, 1), (60000, 0)):
        values = np.linspace(0, highest, 64, dtype=np.uint16).reshape(8, 8)
        Image.fromarray(values).save(tmp_path / "deep.png")
        assert len(open_image(tmp_path / "deep.png").notes) == notes
