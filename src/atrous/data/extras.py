"""What a dataset has beyond RGB images with one mask each: more channels, and more masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from atrous.data.files.exif import Pixels
from atrous.data.files.image_form import ImageForm
from atrous.data.files.images import read_image
from atrous.data.files.mask_form import MaskForm


@dataclass(frozen=True)
class Layer:
    """Further channels of the images.

    Args:
        mean: mean of each channel, 0–255.
        folder: of the files that contain them, each with its image's name; None if samples have them already.
        read: a file → uint8 ``(H, W, C)``.
    """

    mean: tuple[float, ...]
    folder: Path | None = None
    read: Callable[[Path], Pixels] = read_image


@dataclass(frozen=True)
class FurtherMasks:
    """A second set of masks of the same images, with classes of its own.

    Args:
        form: their classes, and how they are written.
        folder: of the files, each with the name of the image's main mask; None if samples have them already.
    """

    form: MaskForm
    folder: Path | None = None


@dataclass(frozen=True)
class Extras:
    """What a dataset has beyond 8-bit RGB images with one mask each; most have nothing.

    Args:
        layers: additional channels, after those of the images.
        masks: masks of auxiliary label sets, by the name of the head that learns them.
        uncolored: if the images are not RGB but other measurements of 8 bits (HHA): the mean of each, 0–255.
        images: the channels and the type of the images, without the layers.
    """

    layers: tuple[Layer, ...] = ()
    masks: Mapping[str, FurtherMasks] = field(default_factory=dict)
    uncolored: tuple[float, ...] = ()
    images: ImageForm = field(default_factory=ImageForm)

    @property
    def channels(self) -> int:
        """The number of channels of an image."""
        return (len(self.uncolored) or self.images.channels) + sum(len(layer.mean) for layer in self.layers)

    @property
    def colored(self) -> bool:
        """Whether the first three channels are red, green and blue from 0 to 255."""
        return self.images.color and not self.uncolored

    @property
    def form(self) -> ImageForm:
        """The channels and the type of a sample's image."""
        return ImageForm(self.channels, self.images.dtype, self.colored and self.channels > 2)

    def means(self, colors: Sequence[float]) -> tuple[float, ...]:
        """The mean of each channel, 0–1, given those of the images without layers (of red, green and blue)."""
        first = tuple(mean / 255 for mean in self.uncolored) or colors
        return (*first, *(mean / 255 for layer in self.layers for mean in layer.mean))

    def folders(self) -> dict[Path, Literal["image", "mask"]]:
        """The folders of its files, and whether these are named after the image or after the mask."""
        folders: dict[Path, Literal["image", "mask"]] = {}
        folders |= {masks.folder: "mask" for masks in self.masks.values() if masks.folder}
        return folders | {layer.folder: "image" for layer in self.layers if layer.folder}
