"""Mutations of files: of bytes anywhere, and of structure where a format has checksums or names that hide damage."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from random import Random
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
INTEGERS = (0, 1, 2, 4, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 5, 255, 256, 30_000, 2**31, 2**63, 10**30, 0.5, -0.0, 1e400, -1e308, float("nan")),
    *("", "x", "../x", "\0", "é" * 300, "1", "null", [], {}, [[]], [1], [None], [[1, 2]], {"a": 1}),
)


def mutate(name: str, data: bytes, random: Random) -> bytes:
    """A file with one change.

    Args:
        name: its name, whose suffix says which structures it has.
        data: its content.
        random: draws the change.
    """
    structured = _STRUCTURED.get(PurePath(name).suffix.lower())
    if structured and random.random() < 0.6:
        try:
            return structured(data, random)
        except Exception:  # an earlier change has broken the structure
            return _bytes(data, random)
    return _bytes(data, random)


def _bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    at = random.randrange(len(changed)) if changed else 0
    if random.random() < 0.5:  # headers are where the structure is
        at = min(at, random.randrange(64))
    match random.randrange(7):
        case 0:
            changed[at : at + 1] = bytes([random.randrange(256)])
        case 1:
            changed[at : at + 1] = bytes([(changed[at] if at < len(changed) else 0) ^ 1 << random.randrange(8)])
        case 2:
            size = random.choice((1, 2, 4, 8))
            number = random.choice(INTEGERS) % 256**size
            changed[at : at + size] = number.to_bytes(size, random.choice(("little", "big")))
        case 3:
            del changed[at : at + random.choice((1, 2, 4, 8, 64, 1024))]
        case 4:
            changed[at:at] = random.randbytes(random.choice((1, 2, 4, 8, 64)))
        case 5:
            del changed[at:]
        case 6:
            start, length = random.randrange(len(changed) + 1), random.choice((4, 16, 256))
            changed[at : at + length] = changed[start : start + length]
    return bytes(changed)


def _json(data: bytes, random: Random) -> bytes:
    value = json.loads(data)
    places = list(_places(value))
    container, key = random.choice(places)
    match random.randrange(6):
        case 0:
            del container[key]
        case 1:
            container[key] = random.choice(STRANGE)
        case 2:
            container[key] = random.choice([other[k] for other, k in places])
        case 3:
            number = container[key]
            if isinstance(number, bool) or not isinstance(number, int | float):
                number = 1
            container[key] = random.choice((-number, number + 1, number - 1, number * 10**8, number / 2, str(number)))
        case 4 if isinstance(container, dict):
            container[random.choice(("", "x", f"{key}_"))] = container.pop(key)
        case 4:
            container.append(container[key])
        case 5:
            container[key] = "[" * 100_000
            return json.dumps(value).replace('"' + "[" * 100_000 + '"', "[" * random.choice((10, 100_000))).encode()
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


_TOML = (
    *("0", "-1", "1e400", "nan", "inf", "true", '""', '"x"', "[]", "{}", "[1]", '["a"]', "[[1, 2]]", "{a = 1}"),
    *(
        "255",
        "256",
        "99999999999999999999",
        "2.5",
        '"a.b"',
        "1979-05-27",
        "07:32:00",
        '"""' + "x" * 300 + '"""',
        "'\\'",
        "[" * 10_000,
    ),
)


def _toml(data: bytes, random: Random) -> bytes:
    lines = data.decode().splitlines()
    at = random.randrange(len(lines))
    key, equals, _ = lines[at].partition("=")
    match random.randrange(5):
        case 0 | 1 if equals:
            lines[at] = f"{key}= {random.choice(_TOML)}"
        case 2:
            del lines[at]
        case 3:
            lines.insert(random.randrange(len(lines) + 1), lines[at])
        case _:
            lines.insert(at, random.choice((f"x = {random.choice(_TOML)}", "[x]", "[[model]]", "[data]", "= 1")))
    return "\n".join(lines).encode()


def _safetensors(data: bytes, random: Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size], random)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _zip(data: bytes, random: Random) -> bytes:
    """Change a member, with the right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(list(members))
    match random.randrange(6):
        case 0:
            del members[name]
        case 1:
            members[random.choice(("x", "x.npy", "../x.npy", f"{name}/x"))] = members.pop(name)
        case 2:
            members[name] = members[random.choice(list(members))]
        case _:
            members[name] = (_npy if random.random() < 0.5 else _bytes)(members[name], random)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


_DTYPES = ("|O", "<f2", "<f4", ">f8", "<c8", "|b1", "<i8", "|u1", "<U3", "|S1", "<M8[s]", "|V4", "<f16")
_SHAPES = ("()", "(0,)", "(3, 0, 2)", "(1, 1, 20, 30)", "(99999, 99999, 9)", "(-1,)", "(2, 30, 20)", "(2.5,)", "None")


def _npy(data: bytes, random: Random) -> bytes:
    """Change the header of an ``.npy`` file."""
    size = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + size].decode("latin1").strip()
    dtype = header.split("'descr': ")[1].split(", 'fortran")[0]
    shape = header.split("'shape': ")[1].rpartition(", }")[0]
    if random.random() < 0.5:
        header = header.replace(dtype, repr(random.choice(_DTYPES)))
    else:
        header = header.replace(shape, random.choice(_SHAPES))
    encoded = header.encode("latin1") + b"\n"
    return data[:8] + len(encoded).to_bytes(2, "little") + encoded + data[10 + size :]


def _png(data: bytes, random: Random) -> bytes:
    """Change a chunk, with the right checksum."""
    if not data.startswith(PNG):
        return _bytes(data, random)
    chunks, at = [], len(PNG)
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    place = random.randrange(len(chunks))
    kind, content = chunks[place]
    match random.randrange(5):
        case 0:
            del chunks[place]
        case 1:
            chunks.insert(random.randrange(len(chunks)), (kind, content))
        case 2 if kind == b"IHDR":
            sides = random.choice((0, 1, 9, 30_000, 100_000, 2**31 - 1)), random.choice((1, 8, 30_000, 2**31 - 1))
            chunks[place] = kind, struct.pack(">II", *sides) + content[8:]
        case 3 if kind == b"IHDR":
            form = random.choice((1, 2, 4, 8, 16)), random.choice((0, 2, 3, 4, 6))
            chunks[place] = kind, content[:8] + bytes(form) + content[10:]
        case 3 if kind == b"IDAT":
            chunks[place] = kind, zlib.compress(_bytes(zlib.decompress(content), random))
        case _:
            chunks[place] = kind, _bytes(content, random)
    return PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _protobuf(data: bytes, random: Random) -> bytes:
    """Change a field of a message, or of a message in it, with the right lengths."""
    parts = list(_fields(data))
    at = random.randrange(len(parts))
    number, kind, value = parts[at]
    match random.randrange(8):
        case 0:
            del parts[at]
        case 1:
            parts.insert(random.randrange(len(parts)), parts[at])
        case 2:
            parts[at] = random.choice(INTEGERS[:10]), kind, value
        case _ if isinstance(value, int):
            parts[at] = number, kind, random.choice((*INTEGERS, 2**63, 2**64 - 1))
        case _:
            try:
                parts[at] = number, kind, _protobuf(value, random)
            except Exception:  # no message: a string or numbers
                parts[at] = number, kind, _bytes(value, random)
    return b"".join(
        _varint(number << 3 | kind)
        + (_varint(value) if isinstance(value, int) else _varint(len(value)) * (kind == 2) + value)
        for number, kind, value in parts
    )


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """The fields of a protobuf message: number, kind of encoding, and value."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, kind, varint()
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else varint()
        if not number or at + size > len(data):
            raise ValueError("not a message")
        yield number, kind, data[at : at + size]
        at += size


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


_STRUCTURED: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": _json,
    ".toml": _toml,
    ".safetensors": _safetensors,
    ".npz": _zip,
    ".pth": _zip,
    ".npy": _npy,
    ".png": _png,
    ".caffemodel": _protobuf,
}
