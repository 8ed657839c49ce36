"""Facts about an image and its mask, from the headers alone or from every pixel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageMode

from atrous.data.files.eight_bits import shown_pixels
from atrous.data.files.exif import Pixels, orientation_of, upright_size
from atrous.data.files.image_form import ImageForm, Values
from atrous.data.files.images import DecodedImage, ImageError, open_image
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.mask_windows import MaskWindows, mask_is_windowed
from atrous.data.files.masks import DecodedMask, MaskError, MaskRef
from atrous.data.files.orientation import Size, agreement, size_of, upright_fit
from atrous.data.files.pillow import open_with_pillow
from atrous.data.files.rasters import ARRAY_SUFFIXES, WHOLE
from atrous.data.files.stored import read_as, stored_size
from atrous.data.sources.seen_masks import NO_VOID, Void, void_in
from atrous.data.windows import cells_of, is_large
from atrous.errors import InputError
from atrous.labels import Color, LabelSet, Mask

RGB = ImageForm()
"""Ordinary images."""
RGB_MASKS = MaskForm(LabelSet.numbered(2), "rgb")
"""Of a mask of which only size and colours are asked."""
T = TypeVar("T", int, Color)
MOST_COLORS = 1000
"""A mask with more colours is not a mask of classes; only the most frequent colours are kept."""


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an image.

    Args:
        size: as it is shown, upright.
        orientation: from EXIF, 1 to 8.
        notes: on how it was read.
        digest: of the pixels; empty if only the header was read.
        partial: the note that it was probably only partly copied; empty for others.
        thumbnail: 16 × 16 grey values; empty if only the header was read.
    """

    size: Size
    orientation: int
    notes: tuple[str, ...] = ()
    digest: bytes = b""
    partial: str = ""
    thumbnail: bytes = b""


@dataclass(frozen=True)
class MaskFacts:
    """Facts about a mask.

    Args:
        size: as it is stored.
        mode: Pillow's.
        lossy: its lossy codec; empty if its pixels are exact.
        values: pixels of each value on disk, if it is an index mask that was read.
        colors: pixels of each colour, if it has channels or is read by colours, and was read.
        opaque: whether no pixel is transparent.
        palette: the colour of each value that occurs, if it has a palette and was read.
        void: its pixels of value 255, if it was read.
        problem: why it has no values, for example "values from 0 to 65535".
        digest: of its pixels; empty if only the header was read.
    """

    size: Size
    mode: str
    lossy: str = ""
    values: dict[int, int] | None = None
    colors: dict[Color, int] | None = None
    opaque: bool = True
    palette: dict[int, Color] = field(default_factory=dict)
    void: Void = NO_VOID
    problem: str = ""
    digest: bytes = b""

    @property
    def coloured(self) -> bool:
        return len(ImageMode.getmode(self.mode).bands) > 1


@dataclass(frozen=True)
class PairFacts:
    """Facts about an image and its mask; a string is the reason why one can't be read.

    Args:
        image: the image.
        mask: the mask.
        upright_fit: if EXIF turns the image and sizes can't show how the mask was drawn, as
            :func:`atrous.data.files.orientation.upright_fit`.
    """

    image: ImageFacts | str
    mask: MaskFacts | str
    upright_fit: float | None = None


def glance(image: Path, mask: MaskRef, images: ImageForm = RGB) -> PairFacts:
    """Read the headers of an image, which is to contain what a form says, and its mask."""
    large = is_large(image, mask, images)
    image_facts = _stored_facts(image, images) if large else _glance_at_image(image, images)
    return PairFacts(image_facts, look_at_mask(mask, RGB_MASKS, 1) if large else _glance_at_mask(mask))


def look(image_file: Path, mask: MaskRef, form: MaskForm, images: ImageForm = RGB) -> PairFacts:
    """Read every pixel of an image and its mask, written in given forms."""
    if is_large(image_file, mask, images):
        return PairFacts(_stored_facts(image_file, images), look_at_mask(mask, form))
    mask_facts, drawn = _look_at_mask(mask, form)
    try:
        image = read_as(image_file, images)
    except ImageError as error:
        return PairFacts(_reason(error, image_file), mask_facts)
    size, orientation = size_of(image.pixels), image.orientation
    fit = None
    if drawn is not None and agreement(size_of(drawn), size, orientation, None) == "unclear":
        fit = upright_fit(image.pixels, drawn, orientation)
    return PairFacts(_image_facts(image, _digest(image.pixels), _thumbnail(image.pixels)), mask_facts, fit)


def look_at_arrays(image: Values, mask: Mask) -> PairFacts:
    """The facts about an image ``(H, W, C)`` and its mask ``(H, W)``, uint8, in memory."""
    values = MaskFacts(size_of(mask), "L", values=_count_values(mask), digest=_digest(mask))
    return PairFacts(ImageFacts(size_of(image), 1, digest=_digest(image), thumbnail=_thumbnail(image)), values)


def look_at_mask(mask: MaskRef, form: MaskForm, most: int | None = None) -> MaskFacts | str:
    """Read every pixel of a mask; of a large one that can be read in windows, at most so many of these."""
    try:
        windows = MaskWindows(mask, form) if mask_is_windowed(mask) else None
        if windows is None or windows.size[0] * windows.size[1] <= WHOLE:
            return _look_at_mask(mask, form)[0]
        cells = list(cells_of(windows.size))
        chosen = cells[:: -(-len(cells) // (most or len(cells)))]
        found = [_facts_of(windows.decode(rows, columns), mask, form)[0] for rows, columns in chosen]
    except InputError as error:
        return _reason(error, mask)
    return replace(reduce(_together, found), size=windows.size, digest=b"")


def _together(one: MaskFacts, other: MaskFacts) -> MaskFacts:
    """The facts about two windows of one mask."""
    return replace(
        one,
        values=_sum(one.values, other.values),
        colors=_sum(one.colors, other.colors),
        palette=one.palette | other.palette,
        void=one.void + other.void,
        problem=one.problem or other.problem,
    )


def _sum(one: dict[T, int] | None, other: dict[T, int] | None) -> dict[T, int] | None:
    if one is None or other is None:
        return None
    return {key: one.get(key, 0) + other.get(key, 0) for key in one | other}


def _glance_at_image(path: Path, form: ImageForm) -> ImageFacts | str:
    if not form.is_rgb or path.suffix.lower() in ARRAY_SUFFIXES:
        return _stored_facts(path, form)
    try:
        with open_with_pillow(path) as image:
            return ImageFacts(upright_size(image), orientation_of(image))
    except Exception:  # what Pillow can't open, our decoder may; if not, its error is the reason
        try:
            return _image_facts(open_image(path))
        except ImageError as error:
            return _reason(error, path)


def _stored_facts(path: Path, form: ImageForm) -> ImageFacts | str:
    try:
        return ImageFacts(stored_size(path, form), 1)
    except ImageError as error:
        return _reason(error, path)


def _image_facts(image: DecodedImage, digest: bytes = b"", thumbnail: bytes = b"") -> ImageFacts:
    return ImageFacts(size_of(image.pixels), image.orientation, image.notes, digest, image.partial, thumbnail)


def _glance_at_mask(ref: MaskRef) -> MaskFacts | str:
    try:
        return MaskFacts(*ref.header())
    except Exception:  # as above
        try:
            ref.open()
        except MaskError as error:
            return _reason(error, ref)
        raise


def _look_at_mask(ref: MaskRef, form: MaskForm) -> tuple[MaskFacts | str, NDArray[np.uint8] | None]:
    try:
        mask = ref.open()
    except MaskError as error:
        return _reason(error, ref), None
    return _facts_of(mask, ref, form)


def _facts_of(mask: DecodedMask, ref: MaskRef, form: MaskForm) -> tuple[MaskFacts, NDArray[np.uint8] | None]:
    """The facts about a decoded mask, and its values or colours."""
    seen = MaskFacts((mask.image.height, mask.image.width), mask.image.mode, mask.lossy)
    if seen.lossy:
        return seen, None
    if form.encoding == "rgb" or (seen.coloured and form.encoding == "index"):
        pixels = mask.colors()
        alpha = np.asarray(mask.image.convert("RGBA"))[..., 3] if mask.image.has_transparency_data else None
        opaque = alpha is None or bool(alpha.min() == 255)
        return replace(seen, colors=_count_colors(pixels), opaque=opaque, digest=_digest(pixels)), pixels
    try:
        values = mask.values(form)
    except MaskError as error:
        return replace(seen, problem=_reason(error, ref)), None
    counts = _count_values(values)
    palette, void = mask.palette(counts) if form.encoding == "index" else {}, void_in(values)
    return replace(seen, values=counts, palette=palette, void=void, digest=_digest(values)), values


def _reason(error: Exception, path: Path | MaskRef) -> str:
    """The message of an error without the file name in front."""
    return str(error).removeprefix(f"{path}: ")


def _count_values(mask: Mask) -> dict[int, int]:
    counts = np.bincount(mask.reshape(-1))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _count_colors(pixels: Pixels) -> dict[Color, int]:
    codes = pixels.reshape(-1, 3).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    found, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_COLORS]
    return {(int(found[i]) >> 16, int(found[i]) >> 8 & 255, int(found[i]) & 255): int(counts[i]) for i in order}


def _thumbnail(pixels: Values) -> bytes:
    seen = pixels if pixels.dtype == np.uint8 else shown_pixels(pixels)
    grey = np.ascontiguousarray(seen[..., :3].mean(axis=2, dtype=np.float32))
    small = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    thumbnail: Pixels = np.rint(small).astype(np.uint8)
    return thumbnail.tobytes()


def _digest(pixels: NDArray[Any]) -> bytes:
    shape = np.array(pixels.shape).tobytes()
    return hashlib.blake2b(shape + np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()
