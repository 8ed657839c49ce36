"""Datasets: one small class each. An item is a photo with its mask; :func:`open_dataset` finds the reader by the name before the colon."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.images import find_images, read_image
from atrous.data.masks import Encoding, read_mask
from atrous.labels import CAMVID, IGNORE, VOC, LabelSet, Mask


class DatasetError(ValueError):
    """A dataset that is not what it should be; the message names the place, what was expected and how to mend it."""


@dataclass(frozen=True)
class Sample:
    """A photo ``(H, W, 3)`` uint8 RGB, its mask ``(H, W)`` uint8 with 255 for ignored pixels, and the photo's name."""

    image: NDArray[np.uint8]
    mask: Mask
    name: str


class Dataset(Protocol):
    """What training and evaluation need of a dataset."""

    name: str
    labels: LabelSet

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class PairedDataset:
    """Photos and masks as pairs of files.

    Args:
        name: what it is called in reports, for example ``voc:val``.
        labels: its classes.
        pairs: photo and mask of each item.
        encoding, remap: how masks are written (see :func:`atrous.data.masks.read_mask`).
    """

    name: str
    labels: LabelSet
    pairs: tuple[tuple[Path, Path], ...]
    encoding: Encoding = "index"
    remap: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """The photo and mask of an item.

        Raises:
            DatasetError: the two differ in size.
            ImageError, MaskError: one of them can't be read.
        """
        photo, mask_file = self.pairs[index]
        image = read_image(photo)
        mask = read_mask(mask_file, self.labels, self.encoding, self.remap)
        if image.shape[:2] != mask.shape:
            (h, w), (mh, mw) = image.shape[:2], mask.shape
            turned = " (the photo's EXIF orientation turns it; the mask must be drawn on the upright photo)" if (h, w) == (mw, mh) else ""
            raise DatasetError(f"{photo} is {w}×{h} but its mask {mask_file} is {mw}×{mh}{turned}")
        return Sample(image, mask, photo.name)


def open_dataset(spec: str, split: str) -> PairedDataset:
    """Open a dataset by its specification.

    Args:
        spec: ``voc:PATH``, ``camvid:PATH`` or ``folder:PATH``.
        split: a split's name; several joined by ``+`` make one (``train+val``).

    Raises:
        DatasetError: an unknown reader, a missing place or split, or a split that lists what is not there.
    """
    kind, colon, place = spec.partition(":")
    if not colon or kind not in READERS:
        raise DatasetError(f"'{spec}' names no dataset; write one of {', '.join(f'{k}:PATH' for k in READERS)}")
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DatasetError(f"'{spec}': there is no folder {root}")
    parts = [READERS[kind](root, name) for name in split.split("+")]
    pairs = tuple(pair for part in parts for pair in part.pairs)
    if not pairs:
        raise DatasetError(f"'{spec}', split '{split}', holds no pictures")
    absent = [file for pair in pairs for file in pair if not file.is_file()]
    if absent:
        raise DatasetError(f"'{spec}', split '{split}', lists {len(absent)} file(s) that are not there; first: {absent[0]}")
    return PairedDataset(f"{kind}:{split}", parts[0].labels, pairs, parts[0].encoding, parts[0].remap)


def _lines(file: Path, root: Path) -> list[str]:
    if not file.is_file():
        there = ", ".join(sorted(p.stem for p in file.parent.glob("*.txt"))) or "none"
        raise DatasetError(f"{root} has no split '{file.stem}' (looked for {file}); splits there: {there}")
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _voc(root: Path, split: str) -> PairedDataset:
    """PASCAL VOC 2012 in the official layout; ``trainaug`` takes its masks from ``SegmentationClassAug`` (SPEC §6.1)."""
    base = next((p for p in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012") if (p / "JPEGImages").is_dir()), None)
    if base is None:
        raise DatasetError(f"{root} is no VOC dataset: expected JPEGImages, SegmentationClass and ImageSets/Segmentation in it")
    masks = "SegmentationClassAug" if "aug" in split else "SegmentationClass"
    pairs = []
    for line in _lines(base / "ImageSets" / "Segmentation" / f"{split}.txt", root):
        listed = line.split()
        if len(listed) == 2:  # DeepLab's lists name photo and mask
            pairs.append((base / listed[0].lstrip("/"), base / listed[1].lstrip("/")))
        else:
            pairs.append((base / "JPEGImages" / f"{line}.jpg", base / masks / f"{line}.png"))
    return PairedDataset(split, VOC, tuple(pairs))


def _camvid(root: Path, split: str) -> PairedDataset:
    """CamVid in the SegNet split: ``train train.txt trainannot`` and so on, 11 classes, value 11 is void."""
    photos = {p.stem: p for p in (root / split).glob("*.*")}
    pairs = []
    for line in _lines(root / f"{split}.txt", root):
        stem = Path(line.split()[0]).stem
        pairs.append((photos.get(stem, root / split / f"{stem}.png"), root / f"{split}annot" / f"{stem}.png"))
    return PairedDataset(split, CAMVID, tuple(pairs), remap={11: IGNORE})


VALIDATION_SHARE = 0.2
"""Share of a plain folder that ``val`` takes when nothing says how to split it."""


def _folder(root: Path, split: str) -> PairedDataset:
    """Anybody's pictures: ``images/`` and ``masks/`` with the same stems, ``labels.toml`` and ``splits/NAME.txt`` where wanted.

    Without ``splits/``, subfolders ``images/train`` and ``masks/train`` are splits; without these, ``val`` is the fifth of the pictures whose names
    hash lowest, ``train`` the others, and ``all`` every one, so that adding pictures never moves one from one side to the other.
    """
    for needed in ("images", "masks"):
        if not (root / needed).is_dir():
            raise DatasetError(f"{root} is no folder dataset: it has no '{needed}' folder (expected images/ and masks/ with the same file names)")
    photos, masks = root / "images", root / "masks"
    found = {p.relative.with_suffix("").as_posix(): p.path for p in find_images([photos])}
    if (root / "splits").is_dir():
        wanted = [str(Path(line).with_suffix("")) if Path(line).suffix else line for line in _lines(root / "splits" / f"{split}.txt", root)]
    elif (photos / split).is_dir():
        wanted = [name for name in found if name.startswith(f"{split}/")]
    else:
        wanted = [name for name in found if split == "all" or _drawn_for_validation(name) == (split == "val")]
        if split not in ("train", "val", "all"):
            raise DatasetError(f"{root} has no split '{split}'; without a splits/ folder there are train, val and all")
    pairs = tuple((found.get(name, photos / f"{name}.jpg"), masks / f"{name}.png") for name in wanted)
    labels, encoding, remap = _folder_labels(root, pairs)
    return PairedDataset(split, labels, pairs, encoding, remap)


def _drawn_for_validation(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < VALIDATION_SHARE * 2**32


def _folder_labels(root: Path, pairs: Sequence[tuple[Path, Path]]) -> tuple[LabelSet, Encoding, dict[int, int]]:
    file = root / "labels.toml"
    if not file.is_file():
        return LabelSet.numbered(_count_classes(root / "masks")), "index", {}
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        labels = LabelSet(tuple(table["names"]), tuple((r, g, b) for r, g, b in table.get("colors", ())))
        encoding = table.get("encoding", "index")
        remap = {int(value): IGNORE for value in table.get("ignore", ())}
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f'{file}: {error!r}; expected names = ["background", ...], and if wanted colors = [[r, g, b], ...], encoding = "index" or "rgb", ignore = [values]'
        ) from error
    if encoding not in ("index", "rgb"):
        raise DatasetError(f"{file}: encoding is '{encoding}', expected \"index\" or \"rgb\"")
    return labels, encoding, remap


def _count_classes(masks: Path) -> int:
    """One more than the largest value, 255 aside, in the masks of a folder without ``labels.toml``."""
    highest = 0
    for file in sorted(masks.rglob("*.png")):
        with Image.open(file) as picture:
            if picture.mode not in ("P", "L", "1"):
                raise DatasetError(f'{file} is a {picture.mode} picture; say what its colours mean: names, colors and encoding = "rgb" in labels.toml')
            values = np.flatnonzero(picture.convert("P" if picture.mode == "1" else picture.mode).histogram()[:IGNORE])
        highest = max(highest, int(values.max(initial=0)))
    return max(highest + 1, 2)


READERS: dict[str, Callable[[Path, str], PairedDataset]] = {"voc": _voc, "camvid": _camvid, "folder": _folder}
"""The readers, by the name that stands before the colon of a data specification."""
