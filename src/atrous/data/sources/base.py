"""What dataset sources share: their interface, and base classes for published datasets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from atrous.data.extras import Extras
from atrous.data.files.find import as_written, is_file
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile, MaskRef
from atrous.data.files.matlab import MatlabMask, MatrixError, scipy_io
from atrous.data.findings import Finding
from atrous.data.sources.names import lists_in, read_lines
from atrous.errors import DatasetError


class Listed(NamedTuple):
    """A pair as a split lists it, whether or not its files exist."""

    name: str
    image: Path
    mask: MaskRef


class Described(Protocol):
    """What messages about a dataset need to know of it."""

    @property
    def kind(self) -> str:
        """The name before the colon of its specification."""

    @property
    def spec(self) -> str:
        """Its specification, ``KIND:PATH``."""

    @property
    def labels_file(self) -> Path | None:
        """The file in which a user can declare how masks are written, if there can be one."""

    @property
    def root(self) -> Path | None:
        """The folder that contains its files; None if it is not on disk."""

    @property
    def repairable(self) -> bool:
        """Whether a repaired copy of it can be written as a folder."""

    def splits(self) -> list[str]:
        """The splits that exist."""


class DatasetSource(Described, Protocol):
    """A dataset on disk: which splits and pairs it has, and how its masks are written."""

    @property
    def root(self) -> Path:
        """The folder that contains its files."""

    @property
    def extras(self) -> Extras:
        """Additional channels and auxiliary masks, and what the images contain."""

    def list_file(self, split: str) -> Path:
        """The file or folder that lists a split, whether or not it exists."""

    def listed(self, split: str) -> list[Listed]:
        """The pairs of one split, in order.

        Raises:
            DatasetError: the split does not exist, or its list can't be read.
        """

    def form(self) -> MaskForm:
        """How its masks are written.

        Raises:
            DatasetError, MaskError: this is neither declared nor clear from the masks.
        """

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        """How its masks are probably written, going by the readable ones, and findings about that."""

    def unused_masks(self) -> list[Path]:
        """Masks without an image."""

    def unlisted_images(self) -> list[Path]:
        """Images in no split, where every image should be in one."""


class PublishedSource:
    """Base of published datasets, whose masks are always written in the same way.

    Attributes:
        kind: the name before the colon of its specification.
        mask_form: how its masks are written.
        root: the folder that contains its files.
    """

    kind: str
    mask_form: MaskForm
    root: Path
    labels_file = None
    extras = Extras()

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.root}"

    @property
    def repairable(self) -> bool:
        return not self.extras.folders()

    def form(self) -> MaskForm:
        return self.mask_form

    def likely_form(self) -> tuple[MaskForm, list[Finding]]:
        return self.form(), []

    def unused_masks(self) -> list[Path]:
        return []

    def unlisted_images(self) -> list[Path]:
        return []  # most have images that are in no list


class MatlabSource(PublishedSource):
    """Base of published datasets with a text file per split and masks in ``.mat`` files, or PNGs in their place.

    Attributes:
        lists, images, masks: folders.
        suffix: of image files.
        prefix: of image and mask names, before what the list contains.
        variable: in the ``.mat`` files that contains the mask.
    """

    lists: Path
    images: Path
    masks: Path
    suffix = ".jpg"
    prefix = ""
    variable: str

    def require_scipy(self) -> None:
        """Fail early if there are ``.mat`` masks that can't be read; PNGs in their place need nothing.

        Raises:
            DatasetError: scipy is not installed.
        """
        if next(self.masks.glob("*.mat"), None):
            try:
                scipy_io()
            except MatrixError as error:
                raise DatasetError(f"{self.spec}: {error}") from error

    def splits(self) -> list[str]:
        return [file.stem for file in lists_in(self.lists) if "_" not in file.stem]

    def list_file(self, split: str) -> Path:
        return self.lists / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        lines = read_lines(self.list_file(split), self.root)
        names = [f"{self.prefix}{Path(line.split()[0]).stem}" for line in lines]  # some lists name image and mask
        return [Listed(name, as_written(self.images / f"{name}{self.suffix}"), self._mask(name)) for name in names]

    def matrix(self, file: Path) -> MatlabMask:
        """The mask in a ``.mat`` file."""
        return MatlabMask(file, self.variable)

    def _mask(self, name: str) -> MaskRef:
        matrix, image = (as_written(self.masks / f"{name}{suffix}") for suffix in (".mat", ".png"))
        return MaskFile(image) if is_file(image) and not is_file(matrix) else self.matrix(matrix)


def list_pairs(source: DatasetSource, split: str) -> list[Listed]:
    """List the pairs of a split, or of several joined by ``+``; a pair that these share is listed once.

    Raises:
        DatasetError: a split does not exist, or its list can't be read.
    """
    pairs: list[Listed] = []
    for part in split.split("+"):  # within one list an image may be repeated on purpose
        before = set(pairs)
        pairs += [pair for pair in source.listed(part) if pair not in before]
    return pairs


def voc_2010_folders(root: Path) -> tuple[Path, Path, Path]:
    """Where the ``VOC2010`` folder of datasets that annotate its images may be."""
    return root, root / "VOC2010", root / "VOCdevkit" / "VOC2010"
