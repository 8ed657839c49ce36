"""What the sources of annotation tools share: classes by name, splits, and finding images by the names in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from atrous.data.files.drawn import DrawnMask
from atrous.data.files.find import FoundImage, composed, find_images
from atrous.data.files.images import ImageError
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.shapes import Overlap, Scene
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import did_you_mean, drawn_for_validation
from atrous.errors import DatasetError, InputError
from atrous.labels import IGNORE, Color, LabelSet, voc_color

BACKGROUND = frozenset({"background", "_background_", "__background__"})
"""Names of class 0, which is also what lies outside all shapes."""
VOID = frozenset({"ignore", "ignored", "__ignore__", "void"})
"""Names of shapes whose pixels are ignored: 255."""
UNNAMED = ""
"""The split of images for which a tool declares none: ``train``, ``val`` and ``all`` are drawn from them."""


def label_classes(names: Iterable[str], colors: Mapping[str, Color] | None = None) -> tuple[LabelSet, dict[str, int]]:
    """The label set of the classes that a tool names: a background, then they in their order.

    Args:
        names: those of :data:`BACKGROUND` are class 0, those of :data:`VOID` are ignored.
        colors: of the classes, where the tool has some.

    Returns:
        The label set, and the label of each name.

    Raises:
        InputError: there are none, or too many.
    """
    names, colors = list(dict.fromkeys(names)), colors or {}
    drawn = [name for name in names if name.lower() not in BACKGROUND | VOID]
    if not drawn:
        raise InputError("there are no classes, so there is nothing to learn")
    table = [(0, 0, 0), *(colors.get(name, voc_color(label)) for label, name in enumerate(drawn, 1))]
    label_set = LabelSet(("background", *drawn), tuple(table))
    labels = {name: label for label, name in enumerate(drawn, 1)}
    labels |= {name: 0 if name.lower() in BACKGROUND else IGNORE for name in names if name not in labels}
    return label_set, labels


class AnnotatedSource(PublishedSource, ABC):
    """Base of the sources of annotation tools.

    Attributes:
        kind: the name before the colon of its specification.
        root: the folder or the file that was named.
        default_overlap: the tool's own rule.
        overlap: the rule that is used.
        reader: a file of annotations and an image in it → its shapes.
        optional_files: whether an image without a file of annotations has no shapes.
    """

    default_overlap: ClassVar[Overlap] = "last"
    reader: ClassVar[Callable[[Path, str], Scene]]
    optional_files: ClassVar[bool] = False

    def __init__(self, root: Path, overlap: Overlap | None = None) -> None:
        self.root, self.overlap = root, overlap or self.default_overlap

    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """The names of the classes, in their order.

        Raises:
            DatasetError: files that name them can't be read.
        """

    @abstractmethod
    def entries(self) -> Mapping[str, Sequence[Listed]]:
        """The pairs of each split, or of :data:`UNNAMED`.

        Raises:
            DatasetError: files of annotations can't be read.
        """

    @property
    def spec(self) -> str:
        chosen = "" if self.overlap == self.default_overlap else f"?overlap={self.overlap}"
        return f"{self.kind}:{self.root}{chosen}"

    def class_colors(self) -> Mapping[str, Color]:
        """The colours of the classes, where the tool has some."""
        return {}

    @cached_property
    def folder(self) -> Path:
        """The folder that was named, or that contains the file that was named."""
        return self.root if self.root.is_dir() else self.root.parent

    @cached_property
    def _classes(self) -> tuple[LabelSet, dict[str, int]]:
        try:
            return label_classes(self.class_names(), self.class_colors())
        except DatasetError:
            raise
        except InputError as error:
            raise DatasetError(f"{self.spec}: {error}") from error

    def shape_labels(self) -> Mapping[str, int]:
        """The label of each class, by what its shapes are called in the files."""
        return self._classes[1]

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        return self.shape_labels()

    @cached_property
    def mask_form(self) -> MaskForm:  # type: ignore[override]
        return MaskForm(self._classes[0], orientation="upright")

    @cached_property
    def pairs(self) -> Mapping[str, Sequence[Listed]]:
        """The pairs of each split; an image with two files of annotations is refused."""
        return self.entries()

    def pair(self, name: str, image_file: Path, file: Path, image: str = "") -> Listed:
        """An image with the mask that is drawn from a file of annotations, in which it has the name ``image``."""
        reader, optional = type(self).reader, self.optional_files
        mask = DrawnMask(file, image, image_file, reader, self._labels, self.overlap, optional=optional)
        return Listed(name, image_file, mask)

    def splits(self) -> list[str]:
        named = sorted(split for split in self.pairs if split != UNNAMED)
        return named or ["train", "val"]

    def unlisted_images(self) -> list[Path]:
        """Images in the folder that have no annotations."""
        listed = {pair.image for pairs in self.pairs.values() for pair in pairs}
        return [image for image in ImageFinder(self.folder).every() if image not in listed]

    def list_file(self, split: str) -> Path:  # noqa: ARG002 - one file or folder has them all
        return self.root

    def listed(self, split: str) -> list[Listed]:
        if split in self.pairs and split != UNNAMED:
            return list(self.pairs[split])
        if split == "all":
            return [pair for pairs in self.pairs.values() for pair in pairs]
        if UNNAMED in self.pairs:
            names = set(drawn_names(self.spec, [pair.name for pair in self.pairs[UNNAMED]], split))
            return [pair for pair in self.pairs[UNNAMED] if pair.name in names]
        there = [*self.splits(), "all"]
        raise DatasetError(
            f"{self.spec} has no split '{split}'{did_you_mean(split, there)}; available splits: {', '.join(there)}"
        )


class UnsplitMasks(PublishedSource, ABC):
    """Base of the exports of masks without splits: ``train``, ``val`` and ``all`` are drawn from them."""

    @property
    @abstractmethod
    def pairs(self) -> list[Listed]:
        """All pairs, in order."""

    def splits(self) -> list[str]:
        return ["train", "val"]

    def list_file(self, split: str) -> Path:  # noqa: ARG002 - there are no lists
        return self.root

    def listed(self, split: str) -> list[Listed]:
        if split == "all":
            return self.pairs
        names = set(drawn_names(self.spec, [pair.name for pair in self.pairs], split))
        return [pair for pair in self.pairs if pair.name in names]


def drawn_names(spec: str, names: Sequence[str], split: str) -> list[str]:
    """The names that ``train`` or ``val`` gets of a dataset without splits.

    Raises:
        DatasetError: another split, or there are too few.
    """
    if split not in ("train", "val"):
        there = ("train", "val", "all")
        raise DatasetError(
            f"{spec} has no split '{split}'{did_you_mean(split, there)}; available splits: {', '.join(there)}"
        )
    drawn = [name for name in names if drawn_for_validation(name) == (split == "val")]
    if not drawn:
        raise DatasetError(
            f"{spec}: {len(names)} annotated image(s) are too few to draw '{split}' from; use the split 'all', or "
            "write a folder with lists: atrous data convert"
        )
    return drawn


class ImageFinder:
    """Finds images by the names that files of annotations have for them, which seldom are their paths.

    Args:
        folders: to search, with all folders in them.
    """

    def __init__(self, *folders: Path) -> None:
        self._by_path: dict[str, Path] = {}
        self._by_name: dict[str, list[Path]] = {}
        for folder in dict.fromkeys(folder for folder in folders if folder.is_dir()):
            for image in _images_in(folder):
                if image.path not in self._by_name.setdefault(_key(image.path.name), []):
                    self._by_name[_key(image.path.name)].append(image.path)
                self._by_path.setdefault(_key(image.relative.as_posix()), image.path)
        self._fallback = folders[0]

    def find(self, name: str) -> Path:
        """The image of a name: by its path below a folder, else by its file name, if one file alone has it.

        Returns:
            The file; a path at which there is none, if there is none.

        Raises:
            InputError: several files have the name.
        """
        name = name.replace("\\", "/")
        for written in dict.fromkeys((name, unquote(name))):
            path = _key(written).lstrip("/")
            while path:  # the longest end of the path that is one below a folder
                if path in self._by_path and (len(self._by_name[path.rpartition("/")[2]]) == 1 or "/" in path):
                    return self._by_path[path]
                path = path.partition("/")[2]
            found = self._by_name.get(_key(written.rpartition("/")[2]), [])
            if len(found) > 1:
                shown = ", ".join(map(str, found[:3]))
                raise InputError(f"the image {written} may be any of {len(found)} files: {shown}; rename them")
            if found:
                return found[0]
        return self._fallback / name.lstrip("/")

    def every(self) -> list[Path]:
        """All images, in order."""
        return sorted(path for paths in self._by_name.values() for path in paths)


def _images_in(folder: Path) -> list[FoundImage]:
    try:
        return find_images([folder])
    except ImageError:
        return []


def _key(name: str) -> str:
    return composed(name).removeprefix("./")


def hex_color(color: str) -> Color:
    """The colour that ``#rrggbb`` is.

    Raises:
        InputError: it is something else.
    """
    digits = color.lstrip("#")
    if len(digits) != 6:
        raise InputError(f"the colour {color!r}, expected #rrggbb")
    value = int(digits, 16)
    return value >> 16, value >> 8 & 255, value & 255
