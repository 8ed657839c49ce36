"""A user's own images: a folder of images and masks, with optional classes and splits."""

from __future__ import annotations

import shlex
from functools import cached_property
from pathlib import Path

from atrous.data.extras import Extras
from atrous.data.files.find import WITH_ARRAYS, FoundImage, composed, find_images, has_images
from atrous.data.files.images import ImageError
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskError, MaskFile
from atrous.data.files.stored import find_form
from atrous.data.finding_kinds import FindingKind
from atrous.data.findings import Finding, Item
from atrous.data.sources.base import Listed
from atrous.data.sources.guess import guess_form, indented, refuse_sorted_palettes
from atrous.data.sources.labels_toml import read_form, read_image_form, toml_of, with_background
from atrous.data.sources.names import closest, did_you_mean, drawn_for_validation, folders_in, lists_in, read_lines
from atrous.data.sources.seen_masks import SeenMask, every_value, masks_seen
from atrous.errors import DatasetError

_OTHER_NAMES = {
    "images": ("image", "imgs", "photos", "photo", "pictures", "jpegimages"),
    "masks": ("mask", "labels", "label", "annotations", "segmentationclass", "gt"),
}
"""Common names of the folders of images and masks."""


class Folder:
    """A user's own images: ``images/`` and ``masks/`` (or ``labels/``) of the same names; optional ``labels.toml``,
    ``splits/NAME.txt``.

    Without ``splits/``, subfolders ``images/train`` and ``masks/train`` are splits; without these, ``val`` is the fifth
    of the images whose names hash lowest, ``train`` the others, and ``all`` every image: adding images never moves
    others from one split to the other.
    """

    kind = "folder"

    def __init__(self, root: Path) -> None:
        self.root = root
        for needed, there in (("images", root / "images"), ("masks", self._masks)):
            if not there.is_dir():
                raise DatasetError(
                    f"{root} is not a folder dataset: it has no '{needed}' folder{self._instead(needed)} "
                    "(expected images/ and masks/ inside)"
                )

    def _instead(self, needed: str) -> str:
        there = [name for name in folders_in(self.root) if name not in _OTHER_NAMES]
        meant = next((name for name in there if name.lower() in _OTHER_NAMES[needed]), None) or closest(needed, there)
        return f"; did you mean {meant}/? `mv {self.root / meant} {self.root / needed}`" if meant else ""

    @property
    def labels_file(self) -> Path:
        return self.root / "labels.toml"

    @cached_property
    def extras(self) -> Extras:
        """What the images contain: as ``labels.toml`` declares it, else as the header of the first one says."""
        declared = read_image_form(self.labels_file)
        return Extras(images=declared or find_form(next(iter(self.images.values()))[0]))

    @property
    def repairable(self) -> bool:
        return self.extras.images.is_rgb  # a repaired copy has PNGs

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        """The images by name: the path below ``images/`` without suffix, which two may share."""
        images: dict[str, list[Path]] = {}
        for image in find_images([self.root / "images"], WITH_ARRAYS):
            images.setdefault(_name(image), []).append(image.path)
        return images

    @cached_property
    def masks(self) -> dict[str, Path]:
        """The masks by the same names; of two with one name, the PNG."""
        try:
            found = [(_name(image), image.path) for image in find_images([self._masks], WITH_ARRAYS)]
        except ImageError:
            return {}
        return dict(sorted(found, key=lambda named: named[1].suffix.lower() == ".png"))

    @cached_property
    def _masks(self) -> Path:
        """The folder of the masks: ``masks``, or ``labels`` if images are in it and not the text files of YOLO."""
        named, other = self.root / "masks", self.root / "labels"
        return other if not named.is_dir() and has_images(other) else named

    def splits(self) -> list[str]:
        if (self.root / "splits").is_dir():
            return [file.stem for file in lists_in(self.root / "splits")]
        folders = folders_in(self.root / "images")
        return folders if "train" in folders else ["train", "val"]

    def list_file(self, split: str) -> Path:
        return self.root / "splits" / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        return [
            Listed(name, image, MaskFile(self.masks.get(name, self._masks / f"{name}.png")))
            for name in self._names(split)
            for image in self.images.get(name, [self.root / "images" / name])
        ]

    def _names(self, split: str) -> list[str]:
        if (self.root / "splits").is_dir():
            return [self._known(line) for line in read_lines(self.list_file(split), self.root)]
        if (self.root / "images" / split).is_dir():
            return [name for name in self.images if name.startswith(f"{split}/")]
        if split == "all":
            return list(self.images)
        if (self.root / "images" / "train").is_dir():  # drawing val from everything would evaluate on training images
            there = folders_in(self.root / "images")
            raise DatasetError(
                f"{self.root} has no split '{split}'{did_you_mean(split, there)}; its subfolders of images/ are: "
                f"{', '.join(there)}"
            )
        if split not in ("train", "val"):
            meant = did_you_mean(split, ("train", "val", "all"))
            raise DatasetError(
                f"{self.root} has no split '{split}'{meant}; without a splits/ folder there are train, val and all"
            )
        drawn = [name for name in self.images if drawn_for_validation(name) == (split == "val")]
        if not drawn:
            raise DatasetError(
                f"{self.root}: {len(self.images)} image(s) are too few to draw '{split}' from; list them, one name "
                "per line, in splits/train.txt and splits/val.txt"
            )
        return drawn

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}"

    def form(self) -> MaskForm:
        if self.labels_file.is_file():
            form = read_form(self.labels_file)
            if form.encoding == "index" and not form.known_colors:
                refuse_sorted_palettes(self.labels_file, list(self.masks.values()))
            return form
        seen = self._masks_seen()
        for mask in seen.values():
            if isinstance(mask, MaskError):
                raise mask
        form, finding = guess_form(self.root, seen)
        if finding and finding.severity == "error":
            raise DatasetError(finding.sentence())
        return form

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        findings = []
        if self.labels_file.is_file():
            try:
                return read_form(self.labels_file), []
            except DatasetError as error:
                if form := with_background(self.labels_file, every_value(self._masks_seen())):
                    return form, [self._one_class(form)]
                found, _, expected = str(error).partition("; expected ")
                findings.append(
                    Finding(FindingKind.LABELS_FILE, "error", found, expected, f"correct {self.labels_file}")
                )
        form, finding = guess_form(self.root, self._masks_seen())
        return form, findings + ([finding] if finding else [])

    def _one_class(self, form: MaskForm) -> Finding:
        name = form.label_set.names[1]
        return Finding(
            FindingKind.ONE_CLASS,
            "error",
            f"{self.labels_file} names one class, {name}, which can't be distinguished from anything: training would "
            "have a "
            "loss of 0, and evaluation 100 %",
            "two classes or more: the background is one",
            f"write {self.labels_file}:\n{indented(toml_of(form))}\nor let `atrous data check {shlex.quote(self.spec)} "
            "--fix NEW_FOLDER` do it in a copy",
            (Item(str(self.labels_file)),),
        )

    def _masks_seen(self) -> dict[Path, SeenMask | MaskError]:
        return masks_seen([self.masks[name] for name in self.images if name in self.masks])

    def unused_masks(self) -> list[Path]:
        return [mask for name, mask in self.masks.items() if name not in self.images]

    def unlisted_images(self) -> list[Path]:
        if not ((self.root / "splits").is_dir() or (self.root / "images" / "train").is_dir()):
            return []
        try:
            listed = {pair.image for split in self.splits() for pair in self.listed(split)}
        except DatasetError:
            return []
        return [image for images in self.images.values() for image in images if image not in listed]

    def _known(self, line: str) -> str:
        """The name of an image as a list has it: with or without suffix, ``./`` or ``images/`` in front."""
        path = Path(composed(line))
        name = (path.with_suffix("") if path.suffix.lower() in WITH_ARRAYS else path).as_posix()
        below = name.removeprefix("images/")
        return below if below in self.images else name


def _name(image: FoundImage) -> str:
    return composed(image.relative.with_suffix("").as_posix())
