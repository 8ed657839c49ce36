"""webdataset: tar files whose members ``KEY.jpg`` and ``KEY.mask.png`` are pairs."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

from atrous.data.dataset import PairedDataset
from atrous.data.files.images import DecodedImage, decode_image
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef, decode_mask
from atrous.data.files.pillow import open_with_pillow
from atrous.data.sources.labels_toml import read_form
from atrous.data.sources.names import did_you_mean, drawn_for_validation, usual_split, visible
from atrous.errors import DatasetError

IMAGES = ("jpg", "jpeg", "webp", "image.png", "png")
MASKS = ("mask.png", "seg.png", "label.png", "annotation.png", "png")
"""Endings of members, of which the first that a key has counts."""


class Member(NamedTuple):
    """Where the bytes of a file are in a tar."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}, {self.name}"

    def read(self) -> bytes:
        """Its bytes."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class MemberImage:
    """An image in a tar.

    Args:
        name: the key.
        member: where it is.
    """

    name: str
    member: Member

    def __str__(self) -> str:
        return str(self.member)

    def open(self) -> DecodedImage:
        return decode_image(self.member.read(), str(self))


@dataclass(frozen=True)
class MemberMask(MaskRef):
    """A mask in a tar."""

    member: Member
    expected: ClassVar[str] = "a PNG in the tar"

    def __str__(self) -> str:
        return str(self.member)

    def header(self) -> MaskHeader:
        with open_with_pillow(self.member.read()) as image:
            return MaskHeader((image.height, image.width), image.mode)

    def decode(self) -> DecodedMask:
        return decode_mask(self.member.read(), str(self))


def open_webdataset(path: str, split: str) -> PairedDataset:
    """Open a split of ``webdataset:PATH``, a folder of tars or one; the classes are in a ``labels.toml`` beside them.

    A split is the tars whose names begin with it, ``train-000000.tar``; of a single tar, ``train`` and ``val`` are
    drawn by a hash of the keys, and ``all`` is all.

    Raises:
        DatasetError: no tars, no such split, no ``labels.toml``, or a pair is incomplete.
    """
    root = Path(path).expanduser()
    tars = [root] if root.is_file() else visible(root.glob("*.tar"))
    if not tars:
        raise DatasetError(f"webdataset:{path} has no .tar files; a shard has members KEY.jpg and KEY.mask.png")
    labels = (root if root.is_dir() else root.parent) / "labels.toml"
    if not labels.is_file():
        raise DatasetError(f'webdataset:{path} does not name its classes; write {labels}: names = ["background", …]')
    shards: dict[str, list[Path]] = {}
    for tar in tars:
        shards.setdefault(usual_split(re.split(r"[-_.\d]", tar.name)[0]), []).append(tar)
    named = {name: files for name, files in shards.items() if name in ("train", "val", "test")}
    pairs = [pair for tar in (named.get(split) or ([] if named and split != "all" else tars)) for pair in _pairs(tar)]
    if not named and split in ("train", "val"):
        pairs = [pair for pair in pairs if drawn_for_validation(pair[0]) == (split == "val")]
    elif not pairs or (not named and split != "all"):
        there = [*(named or ("train", "val")), "all"]
        meant = did_you_mean(split, there)
        raise DatasetError(f"webdataset:{path} has no split '{split}'{meant}; available splits: {', '.join(there)}")
    refs = tuple((MemberImage(key, image), MemberMask(mask.tar, mask)) for key, image, mask in pairs)
    return PairedDataset(f"webdataset:{split}", read_form(labels), refs)


def _pairs(tar: Path) -> list[tuple[str, Member, Member]]:
    status = tar.stat()
    return _read(tar, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _read(tar: Path, modified: int, size: int) -> list[tuple[str, Member, Member]]:  # noqa: ARG001 - part of the key
    members: dict[str, dict[str, Member]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                folder, _, name = info.name.rpartition("/")
                key, _, ending = name.partition(".")
                if info.isfile() and key:
                    whole = f"{folder}/{key}".lstrip("/")
                    members.setdefault(whole, {})[ending.lower()] = Member(tar, info.name, info.offset_data, info.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DatasetError(f"{tar}: not a readable tar without compression ({error})") from error
    return [_pair(tar, key, there) for key, there in members.items()]


def _pair(tar: Path, key: str, there: dict[str, Member]) -> tuple[str, Member, Member]:
    image = next((there[ending] for ending in IMAGES if ending in there), None)
    mask = next((there[ending] for ending in MASKS if ending in there and there[ending] is not image), None)
    if image is None or mask is None:
        raise DatasetError(
            f"{tar}: the key {key} has {', '.join(there)}; expected an image ({', '.join(IMAGES)}) and a mask "
            f"({', '.join(MASKS)})"
        )
    return key, image, mask
