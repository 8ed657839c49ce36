"""Where the files of a dataset lie: one small class for each published layout and for anybody's folder."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from atrous.data.findings import DatasetError, Finding
from atrous.data.forms import guess_form, read_form, read_text, values_seen
from atrous.data.images import SUFFIXES, ImageError, find_images
from atrous.data.masks import MaskError, MaskForm
from atrous.labels import CAMVID, VOC


class Listed(NamedTuple):
    """A pair as a split lists it, whether or not its files are there."""

    name: str
    photo: Path
    mask: Path


class Layout(Protocol):
    """What the reader and the doctor need of a dataset on disk."""

    kind: str
    """The name before the colon of its specification."""

    @property
    def spec(self) -> str:
        """Its specification."""

    root: Path
    """The folder its files lie below."""

    @property
    def labels_file(self) -> Path | None:
        """Where a person can say how masks are written."""

    def splits(self) -> list[str]:
        """The splits that are there."""

    def list_file(self, split: str) -> Path:
        """Where the names of a split are listed, or would be."""

    def listed(self, split: str) -> list[Listed]:
        """The pairs of one split, in order.

        Raises:
            DatasetError: no such split, or its list can't be read.
        """

    def form(self) -> MaskForm:
        """How its masks are written.

        Raises:
            DatasetError, MaskError: it can't be told.
        """

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        """How its masks are probably written, going by those that can be read, and what is wrong about it."""

    def spare_masks(self) -> list[Path]:
        """Masks that no photo belongs to."""

    def spare_photos(self) -> list[Path]:
        """Photos that are in no split, where every photo was meant to be in one."""


def find_layout(spec: str) -> Layout:
    """The layout of a dataset by its specification, ``voc:PATH``, ``camvid:PATH`` or ``folder:PATH``.

    Raises:
        DatasetError: an unknown reader, or no such dataset there.
        ImageError: a folder without pictures.
    """
    kind, colon, place = spec.partition(":")
    if not colon or kind not in READERS:
        near = f"folder:{spec}" if Path(spec).is_dir() else f"{closest(kind, READERS)}:{place}"
        meant = "" if near.startswith("None") or near.endswith(":") else f" (did you mean {near}?)"
        raise DatasetError(f"'{spec}' names no dataset{meant}; write one of {', '.join(f'{k}:PATH' for k in READERS)}")
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DatasetError(f"'{spec}': there is no folder {root}{did_you_mean(root.name, _folders(root.parent))}")
    return READERS[kind](root)


def list_pairs(layout: Layout, split: str) -> list[Listed]:
    """The pairs of a split, or of several joined by ``+``, in which a pair that they share comes once.

    Raises:
        DatasetError: no such split, or its list can't be read.
    """
    pairs: list[Listed] = []
    for part in split.split("+"):  # one list may name a picture twice on purpose
        before = set(pairs)
        pairs += [pair for pair in layout.listed(part) if pair not in before]
    return pairs


def closest(name: str, there: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    spelt = {known.lower(): known for known in there}
    near = difflib.get_close_matches(name.lower(), spelt, 1, 0.6)
    return spelt[near[0]] if near else None


def did_you_mean(name: str, there: Iterable[str]) -> str:
    """The same as an addition to a message; empty if nothing is near."""
    near = closest(name, there)
    return f" (did you mean '{near}'?)" if near else ""


def _folders(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if p.is_dir()) if place.is_dir() else []


def _lines(file: Path, root: Path) -> list[str]:
    if not file.is_file():
        there = sorted(p.stem for p in file.parent.glob("*.txt"))
        raise DatasetError(
            f"{root} has no split '{file.stem}'{did_you_mean(file.stem, there)} (looked for {file}); "
            f"splits there: {', '.join(there) or 'none'}"
        )
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


class Voc:
    """PASCAL VOC 2012 as published; ``trainaug`` takes its masks from ``SegmentationClassAug`` (SPEC §6.1)."""

    kind = "voc"
    labels_file = None

    def __init__(self, root: Path) -> None:
        places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
        base = next((place for place in places if (place / "JPEGImages").is_dir()), None)
        if base is None:
            raise DatasetError(
                f"{root} is no VOC dataset: expected JPEGImages, SegmentationClass and ImageSets/Segmentation in it"
            )
        self.root = base

    def splits(self) -> list[str]:
        return sorted(file.stem for file in self._lists.glob("*.txt"))

    def list_file(self, split: str) -> Path:
        return self._lists / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        masks = "SegmentationClassAug" if "aug" in split else "SegmentationClass"
        pairs = []
        for line in _lines(self.list_file(split), self.root):
            words = line.split()
            if len(words) == 2:  # DeepLab's lists name photo and mask
                photo, mask = (self.root / word.lstrip("/") for word in words)
                pairs.append(Listed(photo.stem, photo, mask))
            else:
                pairs.append(Listed(line, self.root / "JPEGImages" / f"{line}.jpg", self.root / masks / f"{line}.png"))
        return pairs

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}"

    def form(self) -> MaskForm:
        return MaskForm(VOC)

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        return self.form(), []

    def spare_masks(self) -> list[Path]:
        photos = {file.stem for file in (self.root / "JPEGImages").iterdir()}
        masks = sorted(self.root.glob("SegmentationClass*/*.png"))
        return [mask for mask in masks if mask.stem not in photos]

    def spare_photos(self) -> list[Path]:
        return []  # most of VOC's photos have no mask

    @property
    def _lists(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"


class CamVid:
    """CamVid in the SegNet split: ``train train.txt trainannot`` and so on, 11 classes, value 11 is void."""

    kind = "camvid"
    labels_file = None

    def __init__(self, root: Path) -> None:
        self.root = root

    def splits(self) -> list[str]:
        return sorted(file.stem for file in self.root.glob("*.txt") if (self.root / file.stem).is_dir())

    def list_file(self, split: str) -> Path:
        return self.root / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        photos = {file.stem: file for file in (self.root / split).glob("*.*")}
        pairs = []
        for line in _lines(self.list_file(split), self.root):
            stem = Path(line.split()[0]).stem  # published: /SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png
            photo = photos.get(stem, self.root / split / f"{stem}.png")
            pairs.append(Listed(stem, photo, self.root / f"{split}annot" / f"{stem}.png"))
        return pairs

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}"

    def form(self) -> MaskForm:
        return MaskForm(CAMVID, ignore=(11,))

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        return self.form(), []

    def spare_masks(self) -> list[Path]:
        spare = []
        for split in self.splits():
            photos = {file.stem for file in (self.root / split).iterdir()}
            spare += [mask for mask in sorted((self.root / f"{split}annot").glob("*.png")) if mask.stem not in photos]
        return spare

    def spare_photos(self) -> list[Path]:
        return []


VALIDATION_SHARE = 0.2
"""Share of a plain folder that ``val`` takes when nothing says how to split it."""

_OTHER_NAMES = {
    "images": ("image", "imgs", "photos", "photo", "pictures", "jpegimages"),
    "masks": ("mask", "labels", "label", "annotations", "segmentationclass", "gt"),
}
"""What people call the folders of photos and masks."""


class Folder:
    """Anybody's pictures: ``images/`` and ``masks/`` of the same names; ``labels.toml``, ``splits/NAME.txt`` if wanted.

    Without ``splits/``, subfolders ``images/train`` and ``masks/train`` are splits; without these, ``val`` is the fifth
    of the pictures whose names hash lowest, ``train`` the others, and ``all`` every one: adding pictures never moves
    one from one side to the other.
    """

    kind = "folder"

    def __init__(self, root: Path) -> None:
        self.root = root
        for needed in ("images", "masks"):
            if not (root / needed).is_dir():
                raise DatasetError(
                    f"{root} is no folder dataset: it has no '{needed}' folder{self._instead(needed)} "
                    "(expected images/ and masks/ inside)"
                )

    def _instead(self, needed: str) -> str:
        there = [name for name in _folders(self.root) if name not in _OTHER_NAMES]
        meant = next((name for name in there if name.lower() in _OTHER_NAMES[needed]), None) or closest(needed, there)
        return f"; did you mean {meant}/? `mv {self.root / meant} {self.root / needed}`" if meant else ""

    @property
    def labels_file(self) -> Path:
        return self.root / "labels.toml"

    @cached_property
    def photos(self) -> dict[str, list[Path]]:
        """The photos by their names, which are paths below ``images/`` without the ending; two may share one."""
        photos: dict[str, list[Path]] = {}
        for image in find_images([self.root / "images"]):
            photos.setdefault(image.relative.with_suffix("").as_posix(), []).append(image.path)
        return photos

    @cached_property
    def masks(self) -> dict[str, Path]:
        """The masks by the same names; of two, the PNG."""
        try:
            found = [(image.relative.with_suffix("").as_posix(), image.path) for image in find_images([self._masks])]
        except ImageError:
            return {}
        return dict(sorted(found, key=lambda named: named[1].suffix.lower() == ".png"))

    @property
    def _masks(self) -> Path:
        return self.root / "masks"

    def splits(self) -> list[str]:
        if (self.root / "splits").is_dir():
            return sorted(file.stem for file in (self.root / "splits").glob("*.txt"))
        folders = _folders(self.root / "images")
        return folders if "train" in folders else ["train", "val"]

    def list_file(self, split: str) -> Path:
        return self.root / "splits" / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        return [
            Listed(name, photo, self.masks.get(name, self.root / "masks" / f"{name}.png"))
            for name in self._names(split)
            for photo in self.photos.get(name, [self.root / "images" / name])
        ]

    def _names(self, split: str) -> list[str]:
        if (self.root / "splits").is_dir():
            lines = _lines(self.list_file(split), self.root)
            return [
                str(Path(line).with_suffix("")) if Path(line).suffix.lower() in SUFFIXES else line for line in lines
            ]
        if (self.root / "images" / split).is_dir():
            return [name for name in self.photos if name.startswith(f"{split}/")]
        if split == "all":
            return list(self.photos)
        if (self.root / "images" / "train").is_dir():  # drawing val from everything would judge on what train learns
            there = _folders(self.root / "images")
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, there)}; its subfolders of images/ are: "
                f"{', '.join(there)}"
            )
        if split not in ("train", "val"):
            meant = did_you_mean(split, ("train", "val", "all"))
            raise DatasetError(
                f"{self.root} has no split '{split}'{meant}; without a splits/ folder there are train, val and all"
            )
        drawn = [name for name in self.photos if _drawn_for_validation(name) == (split == "val")]
        if not drawn:
            raise DatasetError(
                f"{self.root}: {len(self.photos)} photo(s) are too few to draw '{split}' from; say which are which, a "
                "name a line, in splits/train.txt and splits/val.txt"
            )
        return drawn

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}"

    def form(self) -> MaskForm:
        if self.labels_file.is_file():
            return read_form(self.labels_file)
        seen = self._values_seen()
        for values in seen.values():
            if isinstance(values, MaskError):
                raise values
        form, finding = guess_form(self.root, seen)
        if finding:
            raise DatasetError(finding.sentence())
        return form

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        findings = []
        if self.labels_file.is_file():
            try:
                return read_form(self.labels_file), []
            except DatasetError as error:
                found, _, expected = str(error).partition("; expected ")
                findings.append(Finding("labels-file", "error", found, expected, f"correct {self.labels_file}"))
        form, finding = guess_form(self.root, self._values_seen())
        return form, findings + ([finding] if finding else [])

    def _values_seen(self) -> dict[Path, frozenset[int] | MaskError]:
        return values_seen([self.masks[name] for name in self.photos if name in self.masks])

    def spare_masks(self) -> list[Path]:
        return [mask for name, mask in self.masks.items() if name not in self.photos]

    def spare_photos(self) -> list[Path]:
        if not ((self.root / "splits").is_dir() or (self.root / "images" / "train").is_dir()):
            return []
        try:
            listed = {pair.photo for split in self.splits() for pair in self.listed(split)}
        except DatasetError:
            return []
        return [photo for photos in self.photos.values() for photo in photos if photo not in listed]


def _drawn_for_validation(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < VALIDATION_SHARE * 2**32


READERS: dict[str, Callable[[Path], Layout]] = {"voc": Voc, "camvid": CamVid, "folder": Folder}
"""The readers, by the name that stands before the colon of a data specification."""
