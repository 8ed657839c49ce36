"""The checksums of PNGs are verified: a damaged file is never other labels, or another image."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.files.images import ImageError, decode_image
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, MaskFile, read_mask
from atrous.data.files.png import check_png
from atrous.errors import InputError
from atrous.labels import LabelSet

MASK = np.random.default_rng(3).integers(0, 3, (40, 50)).astype(np.uint8)
FORM = MaskForm(LabelSet.numbered(3))


def png(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("level", [0, 6])
def test_a_flipped_bit_is_the_same_mask_or_an_error(level: int, tmp_path: Path) -> None:
    data, file = png(MASK, compress_level=level), tmp_path / "mask.png"
    for at in np.random.default_rng(level).choice(8 * len(data), 300, replace=False):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << (at % 8)
        file.write_bytes(damaged)
        try:
            labels = read_mask(MaskFile(file), FORM)
        except MaskError:
            continue
        np.testing.assert_array_equal(labels, MASK)


@pytest.mark.parametrize("color", [False, True])
def test_damaged_pixels_are_named(color: bool) -> None:
    data = bytearray(png(np.repeat(MASK[..., None], 3, 2) if color else MASK, compress_level=0))
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match=r"^x\.png: a damaged image \(its 'IDAT' chunk has a wrong checksum"):
        decode_image(bytes(data), "x.png")


@pytest.mark.parametrize("end", [-13, -14, -20])
def test_a_cut_off_file_is_an_error(end: int) -> None:
    with pytest.raises(InputError, match="chunk is cut off"):
        check_png(png(MASK)[:end])


def test_what_follows_the_end_is_not_looked_at() -> None:
    assert decode_image(png(MASK) + b"trailing bytes").pixels.shape == (40, 50, 3)


def test_a_wrong_checksum_of_a_text_after_the_pixels_changes_nothing() -> None:
    data = png(MASK)
    text = struct.pack(">I", 5) + b"tEXta\0bcd" + struct.pack(">I", zlib.crc32(b"tEXta\0bcd") ^ 1)
    check_png(data[:-12] + text + data[-12:])
