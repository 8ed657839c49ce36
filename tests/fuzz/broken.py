"""Targets with every fault that the harness should find."""

import os
from pathlib import Path

from atrous.errors import InputError
from tests.fuzz.harness import Target


def _seeds() -> list[dict[str, bytes]]:
    return [{"a.bin": b"healthy"}]


def _refuse(_: Path) -> None:
    raise InputError("refused")


def _raise(folder: Path) -> None:
    if (folder / "a.bin").read_bytes() != b"healthy":
        raise KeyError("x")


def _allocate(_: Path) -> int:
    return len(bytearray(3 * 2**30))


TARGETS = {
    "healthy": Target(_seeds, lambda folder: (folder / "a.bin").read_bytes()),
    "refuses": Target(_seeds, _refuse),
    "raises": Target(_seeds, _raise),
    "allocates": Target(_seeds, _allocate),
    "aborts": Target(_seeds, lambda _: os.abort()),
}
