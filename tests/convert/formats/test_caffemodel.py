"""Reading .caffemodel files: both forms of layers, all forms of arrays, and what is no such file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atrous.convert.formats.caffemodel import CaffeModelError, read_caffemodel


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


Write = Callable[..., Path]


def layers() -> dict[str, tuple[np.ndarray, ...]]:
    random = np.random.default_rng(0)
    return {
        "conv1_1": (random.normal(size=(4, 3, 3, 3)).astype(np.float32), np.arange(4, dtype=np.float32)),
        "fc8": (random.normal(size=(300, 200)).astype(np.float32),),
        "precise": (np.array([np.pi, np.e]),),
    }


@pytest.mark.parametrize("form", ["new", "old", "unpacked"])
def test_names_and_arrays_are_those_written(write_caffemodel: Write, form: str) -> None:
    found = read_caffemodel(write_caffemodel(layers(), form))
    assert [layer.name for layer in found] == list(layers())  # the layer without arrays is left out
    for layer, arrays in zip(found, layers().values(), strict=True):
        for ours, theirs in zip(layer.blobs, arrays, strict=True):
            assert ours.shape == ((1, 1, 1, 1, *theirs.shape)[-4:] if form == "old" else theirs.shape)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs)


@pytest.mark.parametrize(("form", "number", "tag"), [("new", 100, b"\xa2\x06"), ("old", 2, b"\x12")])
def test_a_file_cut_short_says_where(write_caffemodel: Write, form: str, number: int, tag: bytes) -> None:
    file = write_caffemodel({"conv1": (np.ones((2, 3), np.float32),), "conv2": (np.ones(5, np.float32),)}, form)
    whole = file.read_bytes()
    for size in range(1, len(whole)):
        file.write_bytes(whole[:size])
        if whole[size:].startswith(tag) and b"conv1" in whole[:size]:  # a layer less; what it should hold is missing
            assert [layer.name for layer in read_caffemodel(file)] == ["conv1"]
            continue
        with pytest.raises(CaffeModelError, match=r"byte \d+|no layer with parameters"):
            read_caffemodel(file)
    file.write_bytes(whole[:-3])
    with pytest.raises(
        CaffeModelError,
        match=rf"net\.caffemodel is truncated or damaged after layer 'conv1', .*: byte \d+: field {number} should have "
        r"\d+ bytes, but \d+ are left",
    ):
        read_caffemodel(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04", "a zip file; if PyTorch wrote it, use `atrous convert pytorch`"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git LFS pointer"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x80\x02}", "a pickle; if PyTorch wrote it, use `atrous convert pytorch`"),
        (b"\x58" + bytes(7) + b'{"a": {}}', "a safetensors file: use `atrous convert pytorch`"),
        (b'name: "VGG"\nlayer {', r"a text file, such as the \.prototxt of a net"),
        (b"layers {", r"a text file, such as the \.prototxt of a net"),
        (b"\xff" * 30, "byte 0: an integer does not end"),
        (b"\x0b", "byte 0: not the beginning of a protobuf field"),
        (b"\x00\x00", "byte 0: not the beginning"),
        (b"\x10\x05", "found the number 5 instead of a message or string"),
        (b"\x0a\x02hi", "has no layer with parameters"),
        (b"\x12\x04\x0a\x02\x0a\x00", "the form of 2013; upgrade it by Caffe's upgrade_net_proto_binary"),
        (b"\xa2\x06\x08\x3a\x06\x3a\x04\x0a\x02\x02\x03", r"an array of \[2, 3\] <f4 in 0 bytes"),
    ],
)
def test_another_file_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "other.caffemodel"
    file.write_bytes(content)
    with pytest.raises(CaffeModelError, match=rf"other\.caffemodel .*{words}"):
        read_caffemodel(file)


def test_noise_is_read_or_refused_but_never_crashes(tmp_path: Path, write_caffemodel: Write) -> None:
    random = np.random.default_rng(0)
    whole = np.frombuffer(write_caffemodel({"conv1": (np.ones((2, 3), np.float32),)}).read_bytes(), np.uint8)
    file = tmp_path / "noise.caffemodel"
    refused = 0
    for _ in range(100):
        broken = whole.copy()
        broken[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
        file.write_bytes(broken.tobytes())
        try:
            read_caffemodel(file)
        except CaffeModelError:
            refused += 1
    assert 20 < refused < 100


@pytest.mark.parametrize("shape", [(2**63, 0), (2**40, 0), (2**64 - 1, 0), (1,) * 40])
def test_dimensions_that_no_array_has_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    blob = field(7, field(1, b"".join(map(varint, shape)))) + field(5, b"" if 0 in shape else b"\0" * 4)
    file = tmp_path / "net.caffemodel"
    file.write_bytes(field(100, field(1, b"conv1") + field(7, blob)))
    with pytest.raises(CaffeModelError, match=r"net\.caffemodel is truncated or damaged.*none is so large"):
        read_caffemodel(file)
