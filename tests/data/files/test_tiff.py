"""TIFFs of any bands, depth, planes, compression and meaning: every pixel as it should be, or a refusal in words."""

import builtins
import io
import logging
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from atrous.data.files.images import DecodedImage, ImageError, decode_image, to_rgb
from atrous.data.files.masks import MaskError, MaskFile
from atrous.data.files.tiff_tags import read_pages
from atrous.errors import InputError

RNG = np.random.default_rng(0)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """A TIFF of values ``(H, W, bands)``, or ``(bands, H, W)`` in planes."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def in_planes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def eight_bits(values: np.ndarray) -> np.ndarray:
    """What values of any type should become, by a formula of its own."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return (values // 256).astype(np.uint8)
    if values.dtype == np.int8 and values.min() >= 0:
        return np.rint(values * (255 / 127)).astype(np.uint8)
    wide = values.astype(np.float32)
    low, high = float(wide.min()), float(wide.max())
    if values.dtype.kind in "iu" and low >= 0 and values.max() < 65536:
        return (values // 256).astype(np.uint8)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    return np.rint((wide - low) * (255 / (high - low or 1))).astype(np.uint8)


def random_values(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return (rng.random(shape) * rng.choice([1, 300]) - rng.choice([0, 50])).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, np.ndarray, str, list[str]]:
    """A TIFF; its values ``(H, W, bands)``, photometric, and the meanings of its bands beyond the colors."""
    photometric = draw(st.sampled_from(["minisblack", "miniswhite", "rgb"]))
    bands = draw(st.integers(3 if photometric == "rgb" else 1, 7))
    dtype = np.dtype(draw(st.sampled_from("u1 u2 u4 i1 i2 i4 f2 f4 f8".split())))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    values = random_values(dtype, (*size, bands), draw(st.integers(0, 2**32)))
    planar = bands > 1 and draw(st.booleans())
    compression = draw(st.sampled_from([None, "zlib", "lzw", "packbits", "zstd"]))
    colors = 3 if photometric == "rgb" else 1
    extra = [draw(st.sampled_from(["unspecified", "unassalpha"]))] if bands == colors + 1 else []
    extra = extra or ["unspecified"] * (bands - colors)
    options: dict[str, Any] = {
        "photometric": photometric,
        "compression": compression,
        "extrasamples": extra,
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "rowsperstrip": draw(st.sampled_from([1, 7, 40])),
        "metadata": None,
    }
    if compression in ("zlib", "lzw", "zstd") and dtype.kind != "f":
        options["predictor"] = draw(st.booleans())
    if draw(st.booleans()):
        options.pop("rowsperstrip")
        options["tile"] = (16, 32)
    if bands == 1:
        return tiff(values[..., 0], **options), values, photometric, extra
    if planar:
        return tiff(in_planes(values), planarconfig="separate", **options), values, photometric, extra
    return tiff(values, planarconfig="contig", **options), values, photometric, extra


@given(files())
@settings(deadline=None, max_examples=250)
def test_every_pixel_is_read_rightly_or_the_file_is_refused(file: tuple[bytes, np.ndarray, str, list[str]]) -> None:
    data, values, photometric, extra = file
    bands, alpha = values.shape[2], extra[-1:] == ["unassalpha"]
    if photometric != "rgb" and bands - alpha not in (1, 3):
        with pytest.raises(ImageError, match=rf"{bands} bands of {8 * values.dtype.itemsize}.*expected a grey image"):
            decode_image(data)
        return
    colors = values[..., : 1 if bands - alpha == 1 else 3]
    assume(values.dtype != np.uint32 or colors.max() > 65535)
    pixels = np.repeat(eight_bits(colors), 3 // colors.shape[2], axis=2)
    if photometric == "miniswhite":
        pixels = 255 - pixels
    if alpha:
        assume(values.dtype in (np.uint8, np.uint16))
        rgba = np.concatenate([pixels, eight_bits(values[..., -1:])], axis=2)
        image = Image.fromarray(rgba)
        pixels = np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert (photometric != "rgb" and bands >= 3) == any("are read as red, green and blue" in n for n in decoded.notes)
    assert (photometric == "rgb" and bands - alpha > 3) == any("left out" in note for note in decoded.notes)


@given(files(), st.integers(0, 10_000), st.binary(min_size=1, max_size=12), st.booleans())
@settings(deadline=None, max_examples=150)
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_a_damaged_file_is_an_image_or_an_image_error(
    file: tuple[bytes, np.ndarray, str, list[str]], at: int, patch: bytes, cut: bool
) -> None:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    data = file[0]
    at %= len(data)
    damaged = data[:at] + patch + (b"" if cut else data[at + len(patch) :])
    try:
        decoded = decode_image(damaged)
    except ImageError:
        return
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape[2] == 3


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_depths_between_use_the_whole_range(bits: int, photometric: str) -> None:
    values = RNG.integers(0, 1 << bits, (9, 24), endpoint=False).astype(np.uint8 if bits <= 8 else np.uint16)
    values.flat[:2] = 0, (1 << bits) - 1
    data = tiff(values, photometric=photometric, bitspersample=bits, metadata=None)
    expected = values * (255 // ((1 << bits) - 1)) if bits <= 8 else values >> (bits - 8)
    expected = 255 - expected if photometric == "miniswhite" else expected
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, np.repeat(expected[..., None], 3, 2))
    assert decoded.notes == ()


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_bands_too(orientation: int, planar: bool) -> None:
    rgb = RNG.integers(0, 256, (6, 9, 3), np.uint8)
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "extratags": [(274, 3, 1, orientation, False)]}
    plain = decode_image(tiff(rgb, **options))
    deep = rgb.astype(np.uint16) << 8
    options |= {"planarconfig": "separate" if planar else "contig", "photometric": "minisblack"}
    banded = decode_image(tiff(in_planes(deep) if planar else deep, **options))
    assert plain.orientation == banded.orientation == orientation
    np.testing.assert_array_equal(banded.pixels, plain.pixels)
    floats = {**options, "photometric": "rgb"}
    values = (rgb / 255).astype(np.float32)
    pixels = decode_image(tiff(in_planes(values) if planar else values, **floats)).pixels
    np.testing.assert_array_equal(pixels, plain.pixels)


def test_colors_multiplied_by_alpha_are_laid_over_white() -> None:
    rgba = np.array([[[100, 50, 0, 128], [7, 8, 9, 255], [0, 0, 0, 0]]], np.uint8)
    for options in ({"planarconfig": "contig"}, {"planarconfig": "separate"}):
        values = rgba if options["planarconfig"] == "contig" else in_planes(rgba)
        read = decode_image(tiff(values, photometric="rgb", extrasamples=["assocalpha"], metadata=None, **options))
        assert np.abs(read.pixels.astype(int) - [[[227, 177, 127], [7, 8, 9], [255, 255, 255]]]).max() <= 1
        assert "transparent parts are read as white" in read.notes


@pytest.mark.parametrize("planar", [False, True])
def test_cmyk_in_planes_is_read_as_without(planar: bool) -> None:
    cmyk = np.array(Image.fromarray(RNG.integers(0, 256, (5, 6, 3), np.uint8)).convert("CMYK"))
    options: dict[str, Any] = {"photometric": "separated", "metadata": None}
    data = tiff(in_planes(cmyk), planarconfig="separate", **options) if planar else tiff(cmyk, **options)
    expected = np.array(Image.fromarray(cmyk, "CMYK").convert("RGB"))
    np.testing.assert_array_equal(decode_image(data).pixels, expected)


def with_subordinate(main: np.ndarray, *, flagged: bool, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        small = np.full((8, 8, 3), 9, np.uint8)
        file.write(small, photometric="rgb", subifds=1, subfiletype=int(flagged), metadata=None)
        file.write(main, subfiletype=0, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("flagged", [True, False])
def test_the_image_behind_a_thumbnail_is_read(flagged: bool) -> None:
    rgb = RNG.integers(0, 256, (30, 20, 3), np.uint8)
    decoded = decode_image(with_subordinate(rgb, flagged=flagged, photometric="rgb"))
    np.testing.assert_array_equal(decoded.pixels, rgb)
    assert decoded.notes == ("the file begins with a thumbnail, 8×8; its main image is read",)


@pytest.mark.parametrize("photometric", [32803, 34892])
def test_the_raw_data_of_a_camera_is_refused_and_not_its_thumbnail_read(photometric: int) -> None:
    raw = RNG.integers(0, 4096, (30, 20, 3) if photometric == 34892 else (30, 20), np.uint16)
    with pytest.raises(ImageError, match=r"x\.dng: raw data of a camera .*develop it"):
        decode_image(with_subordinate(raw, flagged=True, photometric=photometric), "x.dng")


def test_a_thumbnail_in_front_of_the_page_is_not_the_image() -> None:
    rgb = RNG.integers(0, 256, (30, 20, 3), np.uint8)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(rgb[:5, :5], photometric="rgb", subfiletype=1, metadata=None)
        file.write(rgb, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(decode_image(buffer.getvalue()).pixels, rgb)


def test_smaller_images_behind_the_first_page_change_nothing() -> None:
    rgb = RNG.integers(0, 256, (30, 20, 3), np.uint8)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(rgb, photometric="rgb", subifds=1, metadata=None)
        file.write(rgb[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(rgb[:3, :3], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(decode_image(buffer.getvalue()).pixels, rgb)


@pytest.mark.parametrize("bands", [2, 4, 5, 8])
def test_bands_without_a_color_are_named(bands: int) -> None:
    data = tiff(np.zeros((4, 4, bands), np.uint16), photometric="minisblack", planarconfig="contig")
    words = (
        rf"x\.tif: a TIFF of {bands} bands of 16 bits \(BlackIsZero\); expected a grey image \(1 band\) or red, green"
    )
    with pytest.raises(ImageError, match=words):
        decode_image(data, "x.tif")


def test_without_tifffile_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_tifffile(name: str, *args: Any, **options: Any) -> Any:
        if name == "tifffile":
            raise ImportError(name)
        return real(name, *args, **options)

    values = RNG.integers(0, 65536, (4, 4, 3), np.uint16)
    data = tiff(values, photometric="minisblack", planarconfig="contig")
    monkeypatch.setattr(builtins, "__import__", no_tifffile)
    with pytest.raises(ImageError, match=r"x\.tif: a TIFF of 3 bands of 16 bits .*pip install 'atrous\[geo\]'"):
        decode_image(data, "x.tif")
    np.testing.assert_array_equal(decode_image(tiff(values, photometric="rgb")).pixels, (values >> 8).astype(np.uint8))


def test_a_mask_that_pillow_would_misread_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "mask.tif"
    file.write_bytes(tiff(np.zeros((4, 4, 3), np.uint8), photometric="minisblack", planarconfig="contig"))
    with pytest.raises(MaskError, match=r"a TIFF of 3 bands of 8 bits \(BlackIsZero\), which Pillow misreads"):
        MaskFile(file).open()
    file.write_bytes(with_subordinate(np.zeros((20, 20), np.uint8), flagged=True, photometric="minisblack"))
    with pytest.raises(MaskError, match="begins with a thumbnail"):
        MaskFile(file).open()


def test_an_opened_pillow_image_is_checked_too() -> None:
    data = tiff(np.zeros((4, 4), np.uint16), photometric="miniswhite")
    with Image.open(io.BytesIO(data)) as image, pytest.raises(InputError, match="which Pillow misreads"):
        to_rgb(image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
@pytest.mark.parametrize(("highest", "notes"), [(4095, 1), (16383, 1), (16384, 0), (65535, 0)])
def test_sixteen_bits_of_which_few_are_used_are_noted(kind: str, mode: str, highest: int, notes: int) -> None:
    decoded = _deep(kind, mode, highest)
    assert len(decoded.notes) == notes
    if notes:
        assert f"values up to {highest} are read as 0 to 65535, which makes it dark" in decoded.notes[0]


def _deep(kind: str, mode: str, highest: int) -> DecodedImage:
    bands = {"RGB": 3, "RGBA": 4, "I;16": 1}[mode]
    values = np.linspace(0, highest, 64 * bands).astype(np.uint16).reshape(8, 8, bands)
    values[..., 3:] = 65535
    values[0, 0, 0] = highest
    if kind == "TIFF":
        photometric = "minisblack" if bands == 1 else "rgb"
        return decode_image(tiff(values[..., 0] if bands == 1 else values, photometric=photometric, metadata=None))
    import cv2

    order = [2, 1, 0, 3][:bands] if bands > 1 else [0]
    return decode_image(cv2.imencode(".png", values[..., order])[1].tobytes())


def test_tags_say_what_a_page_is() -> None:
    page = read_pages(tiff(np.zeros((4, 7, 3), np.float32), photometric="rgb", bigtiff=True))[0]
    assert (page.height, page.width, page.bands, page.depth) == (4, 7, 3, 32)
    assert str(page) == "3 bands of 32 floating-point bits (RGB)"
    assert read_pages(b"II*\0") == []
    assert read_pages(b"II*\0\x08\0\0\0" + bytes(40)) == []
