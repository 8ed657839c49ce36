"""Where the files of a dataset lie: what each reader tells the doctor and ``open_dataset``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from atrous.data.doctor.findings import Finding
from atrous.data.files.images import Pixels
from atrous.data.files.masks import MaskForm
from atrous.data.sources.labels_toml import read_text
from atrous.errors import DatasetError


class Listed(NamedTuple):
    """A pair as a split lists it, whether or not its files are there."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Layer:
    """Images that give images more channels.

    Args:
        folder: where they lie, each under its image's name.
        mean: of each channel, 0–255.
        read: a file → uint8 ``(H, W, C)``.
    """

    folder: Path
    mean: tuple[float, ...]
    read: Callable[[Path], Pixels]


@dataclass(frozen=True)
class FurtherMasks:
    """Masks that tell other things apart in the same images.

    Args:
        folder: where they lie, each under the name of the image's main mask.
        form: how they are written.
    """

    folder: Path
    form: MaskForm


@dataclass(frozen=True)
class Extras:
    """What a dataset has beyond images in colour with one mask each: for most, nothing.

    Args:
        layers: further channels, behind those of the images.
        masks: further masks by the name of what they tell apart.
        uncolored: where images are no colours, but three other measures (HHA): the mean of each, 0–255.
    """

    layers: tuple[Layer, ...] = ()
    masks: Mapping[str, FurtherMasks] = field(default_factory=dict)
    uncolored: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """How many channels its images have."""
        return len(self.means((0, 0, 0)))

    def means(self, colors: Sequence[float]) -> tuple[float, ...]:
        """The mean of each channel as a share, 0–1, those of red, green and blue being given."""
        first = tuple(mean / 255 for mean in self.uncolored) or colors
        return (*first, *(mean / 255 for layer in self.layers for mean in layer.mean))

    def folders(self) -> dict[Path, Literal["image", "mask"]]:
        """The folders of its files, and whose names these have."""
        masks: dict[Path, Literal["image", "mask"]] = {further.folder: "mask" for further in self.masks.values()}
        return masks | {layer.folder: "image" for layer in self.layers}


class Layout(Protocol):
    """What the reader and the doctor need of a dataset on disk."""

    kind: str
    """The name before the colon of its specification."""

    @property
    def spec(self) -> str:
        """Its specification."""

    root: Path
    """The folder its files lie below."""

    extras: Extras
    """What it has beyond images and masks."""

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
        """Masks that no image belongs to."""

    def spare_images(self) -> list[Path]:
        """Images that are in no split, where every image was meant to be in one."""


def list_pairs(layout: Layout, split: str) -> list[Listed]:
    """The pairs of a split, or of several joined by ``+``, in which a pair that they share comes once.

    Raises:
        DatasetError: no such split, or its list can't be read.
    """
    pairs: list[Listed] = []
    for part in split.split("+"):  # one list may name an image twice on purpose
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


def folders_in(place: Path) -> list[str]:
    """The names of the folders in a place; none if there is no such place."""
    return sorted(p.name for p in place.iterdir() if p.is_dir()) if place.is_dir() else []


def read_lines(file: Path, root: Path) -> list[str]:
    """The lines of a list of a dataset, but for empty ones.

    Raises:
        DatasetError: it is not there, or no text in UTF-8.
    """
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
