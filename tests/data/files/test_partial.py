"""Files that decode although their second half is missing: a note at predict, a finding of the doctor."""

import io

import numpy as np
import pytest
from PIL import Image

from atrous.data.doctor.check import check
from atrous.data.files.images import decode_image
from atrous.labels import encode_mask

from ..conftest import LABELS, MakeFolder, draw

RNG = np.random.default_rng(0)


def photo(height: int = 200, width: int = 160) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, RNG.integers(0, 60, (height, width))], axis=2).astype(np.uint8)


def encoded(kind: str, pixels: np.ndarray | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo() if pixels is None else pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def half(data: bytes, fill: int, end: bytes = b"") -> bytes:
    """A file whose second half is one byte over and over, in front of its end."""
    middle = len(data) // 2
    return data[:middle] + bytes([fill]) * (len(data) - middle - len(end)) + end


HALVES = {
    "jpeg that ends early": encoded("JPEG")[: len(encoded("JPEG")) // 2] + b"\xff\xd9",
    "jpeg of zeros": half(encoded("JPEG", quality=95), 0, b"\xff\xd9"),
    "webp of zeros": half(encoded("WEBP"), 0),
    "lossless webp of zeros": half(encoded("WEBP", lossless=True), 0),
    "bmp of zeros": half(encoded("BMP"), 0),
    "bmp of grey": half(encoded("BMP"), 128),
    "tiff of zeros": half(encoded("TIFF"), 0),
    "tiff of grey": half(encoded("TIFF"), 128),
}


@pytest.mark.parametrize("name", HALVES)
def test_a_half_file_is_noted(name: str) -> None:
    decoded = decode_image(HALVES[name])
    assert "only partly copied" in decoded.partial
    assert decoded.partial in decoded.notes


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_the_end_is_where_the_file_ends_not_where_the_image_does(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = photo()
    pixels[120:] = 128
    for shown, partial in ((pixels, True), (pixels[::-1], False), (pixels.swapaxes(0, 1), False)):
        decoded = decode_image(encoded(kind, np.ascontiguousarray(shown), exif=exif))
        assert decoded.orientation == orientation
        assert bool(decoded.partial) == partial


def _sky(height: int) -> np.ndarray:
    pixels = photo()
    pixels[:height] = pixels[-height:] = 255
    return pixels


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize(
    "pixels",
    [
        photo(),
        photo(20, 20),
        np.full((200, 160, 3), 90, np.uint8),
        _sky(40),
        np.where(np.arange(200)[:, None, None] < 190, photo(), 0).astype(np.uint8),
    ],
    ids=["photo", "small", "of one color", "margins", "a narrow strip"],
)
def test_whole_files_are_not_noted(kind: str, pixels: np.ndarray) -> None:
    assert decode_image(encoded(kind, pixels)).notes == ()


def test_a_drawing_may_end_in_one_color() -> None:
    pixels = photo()
    pixels[100:] = 0
    assert decode_image(encoded("PNG", pixels)).notes == ()


def test_padding_behind_the_end_of_a_jpeg_is_not_its_end() -> None:
    assert decode_image(encoded("JPEG") + bytes(20_000)).notes == ()


def test_the_doctor_finds_them(make_folder: MakeFolder) -> None:
    root = make_folder(6)
    image, mask = draw(0, (200, 160))
    (root / "images/a.png").unlink()
    (root / "images/a.bmp").write_bytes(half(encoded("BMP", image), 0))
    (root / "masks/a.png").write_bytes(encode_mask(mask, LABELS))
    (finding,) = [finding for finding in check(f"folder:{root}").findings if finding.kind == "partial-image"]
    assert finding.severity == "warning"
    assert finding.files == (str(root / "images/a.bmp"),)
    assert "only partly copied" in finding.items[0].detail
