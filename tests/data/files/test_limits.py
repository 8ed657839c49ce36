"""One limit on the memory that decoding takes, whatever the file: refused from its header, before anything is read."""

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.data.files import limits
from atrous.data.files.coco_json import CocoMask
from atrous.data.files.images import ImageError, decode_image, open_image
from atrous.data.files.limits import DecodeLimitError, check_array, check_pixels, decode_limit, read_arrays
from atrous.data.files.masks import MaskError, MaskFile
from atrous.errors import InputError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_zeros(side: int, bits: int = 1, color: int = 3) -> bytes:
    """A PNG that is small as a file, and large as an image."""
    header = struct.pack(">IIBBBBB", side, side, bits, color, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + (side * bits + 7) // 8) * 64)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", bytes(6))
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


GIF = b"GIF89a" + struct.pack("<HH", 32767, 32767) + b"\x80\0\0" + bytes(6)
GIF += b"," + struct.pack("<HHHH", 0, 0, 32767, 32767) + b"\0\x02\x02D\x01\0;"


def jpeg_header(side: int) -> bytes:
    small = io.BytesIO()
    Image.new("L", (8, 8)).save(small, "JPEG")
    data = bytearray(small.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def tiff(side: int) -> bytes:
    small = io.BytesIO()
    Image.new("L", (8, 8)).save(small, "TIFF")
    data = bytearray(small.getvalue())
    for tag in (256, 257):
        at = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data[at : at + 4] = struct.pack("<I", side)
    return bytes(data)


BOMBS = {
    "palette.png": png_of_zeros(100_000),
    "grey.png": png_of_zeros(50_000, 8, 0),
    "x.gif": GIF,
    "x.jpg": jpeg_header(65_000),
    "x.tif": tiff(60_000),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_huge_image_or_mask_is_refused_by_its_header(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BOMBS[name])
    words = rf"{name}: .*pixels, which take .* GB to decode; expected at most 2 GB: .*ATROUS_DECODE_LIMIT_GB="
    with pytest.raises(ImageError, match=words):
        open_image(tmp_path / name)
    with pytest.raises(MaskError, match=words):
        MaskFile(tmp_path / name).open()
    with pytest.raises(DecodeLimitError):
        MaskFile(tmp_path / name).header()


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_refusing_takes_no_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BOMBS[name])
    code = f"""if True:
        import resource
        from pathlib import Path
        from atrous.data.files.images import ImageError, open_image
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            open_image(Path({str(tmp_path / name)!r}))
        except ImageError:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) < 50_000  # KB


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    Image.new("L", (110, 100)).save(data, "PNG")
    monkeypatch.setenv(limits.VARIABLE, "0.00008")
    with pytest.raises(ImageError, match=r"big\.png: 110×100 pixels"):
        decode_image(data.getvalue(), "big.png")
    monkeypatch.setenv(limits.VARIABLE, "0.0001")
    assert decode_image(data.getvalue()).pixels.shape == (100, 110, 3)


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_not_a_number_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VARIABLE, value)
    with pytest.raises(InputError, match="expected a number of gigabytes"):
        decode_limit()


def test_a_phone_with_200_megapixels_stays_within_the_limit() -> None:
    check_pixels(12_240, 16_320)
    check_array((150, 1500, 2000), np.dtype(np.float32))


@pytest.mark.parametrize("size", [(30_000, 30_000), (10**6, 10**6), (2**40, 1)])
def test_annotations_of_a_huge_image_are_not_drawn(size: tuple[int, int], tmp_path: Path) -> None:
    outline = [0, 0, 30_000, 0, 30_000, 30_000, 0, 30_000]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "area": 9.0, "segmentation": [outline]}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(MaskError, match="GB to decode"):
        CocoMask(tmp_path / "instances.json", "a", (0, 1)).open()


def test_arrays_are_read_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.arange(3), two=np.zeros((2, 2), np.float32))
    np.save(tmp_path / "b.npy", np.arange(4))
    read = read_arrays(tmp_path / "a.npz")
    assert read.keys() == {"one", "two"}
    np.testing.assert_array_equal(read["one"], np.arange(3))
    np.testing.assert_array_equal(read_arrays(tmp_path / "b.npy")[""], np.arange(4))


def test_an_archive_of_zeros_is_refused_by_the_headers_of_its_members(tmp_path: Path) -> None:
    file = tmp_path / "bomb.npz"
    np.savez_compressed(file, a=np.zeros(150_000_000, np.uint8), b=np.zeros(150_000_000, np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(limits.VARIABLE, "0.2")
        with pytest.raises(DecodeLimitError, match=r"2 arrays, which take 0\.3 GB"):
            read_arrays(file)
        patch.setenv(limits.VARIABLE, "0.1")
        with pytest.raises(DecodeLimitError, match="an array of 150000000 uint8 values"):
            read_arrays(file)


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_damaged_arrays_are_an_error_or_arrays(at: int, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(99))
    np.save(tmp_path / "a.npy", np.arange(99))
    for name in ("a.npz", "a.npy"):
        data = bytearray((tmp_path / name).read_bytes())
        data[at % len(data)] ^= 0x55
        (tmp_path / name).write_bytes(data)
        with contextlib.suppress(InputError):
            read_arrays(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x02\0\xff\xff\xff\xff"])
def test_what_contains_no_array_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="not readable arrays"):
        read_arrays(tmp_path / "x.npz")


def test_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object))
    with pytest.raises(InputError, match="not readable arrays"):
        read_arrays(tmp_path / "x.npy")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin"])
def test_a_device_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match=f"^{path}: a pipe or a device, expected a regular file"):
        open_image(path)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ImageError, match="a pipe or a device"):
        open_image(tmp_path / "x.png")
    with pytest.raises(MaskError, match="a pipe or a device"):
        MaskFile(tmp_path / "x.png").open()
