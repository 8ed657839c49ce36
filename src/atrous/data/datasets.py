"""Datasets of photos with masks; :func:`open_dataset` finds the reader by the name before the colon."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.data.images import SUFFIXES, find_images, read_image
from atrous.data.masks import Encoding, Remap, read_mask, read_values
from atrous.labels import CAMVID, IGNORE, VOC, Color, LabelSet, Mask


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

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> LabelSet: ...

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
    remap: Remap = field(default_factory=dict)

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
            turned = (h, w) == (mw, mh)
            why = "; one of the two is turned, a mask fits the photo as it is shown upright (EXIF)" if turned else ""
            raise DatasetError(
                f"{photo} is {w}×{h} but its mask {mask_file} is {mw}×{mh}{why}; both must have one size"
            )
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
    pairs: tuple[tuple[Path, Path], ...] = ()
    for part in parts:  # a list may name a picture twice on purpose, but joined splits that share one have it once
        before = set(pairs)
        pairs += tuple(pair for pair in part.pairs if pair not in before)
    if not pairs:
        raise DatasetError(f"'{spec}', split '{split}', holds no pictures")
    absent = [file for pair in pairs for file in pair if not file.is_file()]
    if absent:
        raise DatasetError(
            f"'{spec}', split '{split}', lists {len(absent)} file(s) that are not there; first: {absent[0]}. "
            "Complete the dataset, or take their lines out of the list"
        )
    return replace(parts[0], name=f"{kind}:{split}", pairs=pairs)


def _lines(file: Path, root: Path) -> list[str]:
    if not file.is_file():
        there = ", ".join(sorted(p.stem for p in file.parent.glob("*.txt"))) or "none"
        raise DatasetError(f"{root} has no split '{file.stem}' (looked for {file}); splits there: {there}")
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _voc(root: Path, split: str) -> PairedDataset:
    """PASCAL VOC 2012 as published; ``trainaug`` takes its masks from ``SegmentationClassAug`` (SPEC §6.1)."""
    places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    base = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if base is None:
        raise DatasetError(
            f"{root} is no VOC dataset: expected JPEGImages, SegmentationClass and ImageSets/Segmentation in it"
        )
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
        stem = Path(line.split()[0]).stem  # published lists: /SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png
        pairs.append((photos.get(stem, root / split / f"{stem}.png"), root / f"{split}annot" / f"{stem}.png"))
    return PairedDataset(split, CAMVID, tuple(pairs), remap={11: IGNORE})


VALIDATION_SHARE = 0.2
"""Share of a plain folder that ``val`` takes when nothing says how to split it."""


def _folder(root: Path, split: str) -> PairedDataset:
    """Anybody's pictures: ``images/`` and ``masks/`` of the same names; ``labels.toml``, ``splits/NAME.txt`` if wanted.

    Without ``splits/``, subfolders ``images/train`` and ``masks/train`` are splits; without these, ``val`` is the fifth
    of the pictures whose names hash lowest, ``train`` the others, and ``all`` every one: adding pictures never moves
    one from one side to the other.
    """
    for needed in ("images", "masks"):
        if not (root / needed).is_dir():
            raise DatasetError(
                f"{root} is no folder dataset: it has no '{needed}' folder (expected images/ and masks/ inside)"
            )
    photos = _photos(root / "images")
    masks = {name: root / "masks" / f"{name}.png" for name in photos}
    wanted = _names_of_split(root, split, photos)
    if unknown := [name for name in wanted if name not in photos]:
        raise DatasetError(
            f"{root / 'splits' / split}.txt lists {len(unknown)} photo(s) that are not in {root / 'images'}; "
            f"first: {unknown[0]}. Add them, or take their lines out"
        )
    if missing := [name for name in wanted if not masks[name].is_file()]:
        raise DatasetError(_say_missing(masks[missing[0]], len(missing), len(wanted), photos[missing[0]]))
    labels, encoding, remap = _folder_labels(root, masks.values())
    return PairedDataset(split, labels, tuple((photos[name], masks[name]) for name in wanted), encoding, remap)


def _photos(folder: Path) -> dict[str, Path]:
    """The photos below a folder by their names, which are paths without the ending."""
    photos: dict[str, Path] = {}
    for image in find_images([folder]):
        name = image.relative.with_suffix("").as_posix()
        if name in photos:
            raise DatasetError(f"{photos[name]} and {image.path} would share one mask; rename or remove one of the two")
        photos[name] = image.path
    return photos


def _names_of_split(root: Path, split: str, names: Collection[str]) -> list[str]:
    if (root / "splits").is_dir():
        lines = _lines(root / "splits" / f"{split}.txt", root)
        return [str(Path(line).with_suffix("")) if Path(line).suffix.lower() in SUFFIXES else line for line in lines]
    if (root / "images" / split).is_dir():
        return [name for name in names if name.startswith(f"{split}/")]
    if split == "all":
        return list(names)
    if (root / "images" / "train").is_dir():  # drawing val from everything would judge on what train learns from
        there = ", ".join(sorted(p.name for p in (root / "images").iterdir() if p.is_dir()))
        raise DatasetError(f"{root} has no split '{split}'; its subfolders of images/ are: {there}")
    if split not in ("train", "val"):
        raise DatasetError(f"{root} has no split '{split}'; without a splits/ folder there are train, val and all")
    drawn = [name for name in names if _drawn_for_validation(name) == (split == "val")]
    if not drawn:
        raise DatasetError(
            f"{root}: {len(names)} photo(s) are too few to draw '{split}' from; say which are which, a name a line, in "
            "splits/train.txt and splits/val.txt"
        )
    return drawn


def _drawn_for_validation(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < VALIDATION_SHARE * 2**32


def _say_missing(mask: Path, missing: int, wanted: int, photo: Path) -> str:
    folder = mask.parent
    near = sorted(p.name for p in folder.iterdir() if p.name.startswith(mask.stem)) if folder.is_dir() else []
    instead = f" (there is {', '.join(near[:3])})" if near else ""
    return (
        f"{missing} of {wanted} photos have no mask; first: {photo} needs {mask}{instead}. "
        "A mask is a PNG of its photo's name; photos without one go elsewhere, or stay out of splits/*.txt"
    )


Form = tuple[LabelSet, Encoding, Remap]
"""How a folder's masks are meant: its classes, their encoding, and values or colours that mean another label."""


def _folder_labels(root: Path, masks: Iterable[Path]) -> Form:
    file = root / "labels.toml"
    if not file.is_file():
        return LabelSet.numbered(_count_classes(root, masks)), "index", {}
    try:
        return _read_form(tomllib.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:  # TOML's own errors are ValueErrors
        raise DatasetError(
            f'{file}: {error}; expected names = ["background", ...], and if wanted colors = [[r, g, b], ...], '
            'encoding = "index" or "rgb", ignore = [values, or colours of RGB masks]'
        ) from error


def _read_form(table: Mapping[str, Any]) -> Form:
    if unknown := sorted(set(table) - {"names", "colors", "encoding", "ignore"}):
        raise ValueError(f"unknown key {', '.join(unknown)}")
    if not isinstance(table.get("names"), list):
        raise ValueError("no list of names")
    encoding = table.get("encoding", "index")
    if encoding not in ("index", "rgb"):
        raise ValueError(f"encoding is '{encoding}'")
    labels = LabelSet.from_dict(dict(table))
    if encoding == "rgb" and len(set(labels.colors)) < len(labels):
        raise ValueError("two classes have the same colour")
    remap = {_ignored(value, encoding): IGNORE for value in table.get("ignore", ())}
    return labels, encoding, remap


def _ignored(value: Any, encoding: Encoding) -> int | Color:
    if encoding == "rgb":
        r, g, b = value
        return r, g, b
    if not isinstance(value, int) or not 0 <= value <= IGNORE:
        raise ValueError(f"ignore holds {value!r}, which is no value from 0 to {IGNORE}")
    return value


def _count_classes(root: Path, masks: Iterable[Path]) -> int:
    """One more than the largest value, 255 aside, in the masks of a folder without ``labels.toml``."""
    seen = np.zeros(256, bool)
    for file in masks:
        if file.is_file():
            seen[np.unique(read_values(file))] = True
    if seen[IGNORE] and not seen[1:IGNORE].any():
        raise DatasetError(
            f"the masks in {root / 'masks'} hold only 0 and {IGNORE}, but {IGNORE} is ignored everywhere, so there is "
            "nothing to learn; write the foreground as 1"
        )
    return max(int(seen[:IGNORE].nonzero()[0].max(initial=0)) + 1, 2)


READERS: dict[str, Callable[[Path, str], PairedDataset]] = {"voc": _voc, "camvid": _camvid, "folder": _folder}
"""The readers, by the name that stands before the colon of a data specification."""
