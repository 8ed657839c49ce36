"""What is written for each image, atomically, and which files may be replaced."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from atrous.data.files.exif import Pixels
from atrous.data.files.find import FoundImage
from atrous.data.files.images import ImageError
from atrous.data.files.polygons import PolygonFormat, require_packages, write_polygons
from atrous.errors import InputError, OutputExistsError
from atrous.files import remove_leftovers, write_atomically
from atrous.inference.origin import Origin, is_complete, read_origin, source_of
from atrous.inference.segmentation import Segmentation
from atrous.labels import LabelSet, encode_mask
from atrous.viz import areas, attention_figure, encode_jpeg, heat_map, panel_columns

OVERLAY_SIDE = 8192
"""Longest side of an overlay, a heat map or a figure, without captions and legend; larger images are drawn smaller,
while their masks keep their size.
"""

_ENDINGS = re.compile(r"\.(overlay|attention|scale_[\d.e+-]+)\.jpg$")  # images beside a mask
Found = Literal["complete", "other", "nothing"]
"""Results of an earlier run: complete, of another model, settings or version of the image, or incomplete or none."""
PROBABILITIES_FORMAT = 1
"""Version of the arrays in ``NAME.probabilities.npz``."""
OVERLAY, JSON, _PROBABILITIES, _ATTENTION = ".overlay.jpg", ".json", ".probabilities.npz", ".attention.jpg"
PROBABILITY_BANDS = ".probabilities.tif"


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each image beside its mask ``x.png``.

    Args:
        overlays: ``x.overlay.jpg``, the labels over the image, with a legend.
        json: ``x.json``, the size of the image, and the pixels and fraction of each class.
        probabilities: ``x.probabilities.npz``, class probabilities at network resolution: ``probabilities`` float16
            ``(C, h, w)``, ``names``, ``size`` ``(H, W)``, ``stride``, ``offset``; position *i* sits at pixel
            ``stride * i + offset``. Of an image that is read in windows ``x.probabilities.tif``, a band of bytes per
            class at the image's size: byte / 254, 255 where nothing was measured.
        attention_maps: ``x.attention.jpg``, and a heat map ``x.scale_0.5.jpg`` for each scale of a network that attends
            to scales.
        overwrite: also overwrite files that were not produced from the same image (never an input).
        polygons: ``x.gpkg`` or ``x.geojson``, the outlines of all regions
            (:func:`~atrous.data.files.polygons.write_polygons`).
        simplify: how far outlines may move, in units of the coordinate reference system, or pixels without one.

    Raises:
        InputError: another format of polygons, or what they need is not installed.
    """

    overlays: bool = False
    json: bool = False
    probabilities: bool = False
    attention_maps: bool = False
    overwrite: bool = False
    polygons: PolygonFormat | None = None
    simplify: float = 0.0

    def __post_init__(self) -> None:
        if self.polygons:
            require_packages(self.polygons)

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the files beside a mask, apart from the heat maps of single scales."""
        wanted = {
            OVERLAY: self.overlays,
            JSON: self.json,
            _PROBABILITIES: self.probabilities,
            _ATTENTION: self.attention_maps,
        }
        outlines = [f".{self.polygons}"] if self.polygons else []
        return (*(ending for ending, is_wanted in wanted.items() if is_wanted), *outlines)

    @property
    def windowed_endings(self) -> tuple[str, ...]:
        """The same for an image that is read in windows."""
        return tuple(PROBABILITY_BANDS if ending == _PROBABILITIES else ending for ending in self.endings)


@dataclass(frozen=True)
class Done:
    """An image that was segmented: its path, its mask (or the URL of either), and the fraction of each class in it."""

    path: Path | str
    mask: Path | str
    fractions: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """An image that was not segmented, by its path or URL, and why."""

    path: Path | str
    reason: str


@dataclass(frozen=True)
class Writer:
    """Writes the results of each image.

    Args:
        out: folder of the results.
        options: what is written beside the masks.
        inputs: real paths of all images; they are never replaced.
        made_with: a hash of all that the labels depend on besides the image.
    """

    out: Path
    options: OutputOptions
    inputs: frozenset[str]
    made_with: str

    def write(self, image: FoundImage, stem: Path, segmentation: Segmentation) -> Done | Failed:
        """Write the results of an image below ``OUT/stem``."""
        base = self.out / stem
        try:
            files = {base.with_name(base.name + ending): make for ending, make in self._encoders(image, segmentation)}
            mask = next(iter(files))
            self.make_room(image.path, [*files, *self._outlines(mask)])
            for path, encode in files.items():
                write_atomically(path, encode())
            self.outline(mask, segmentation.label_set)
        except (OSError, ValueError) as error:
            return failure(image, error)
        return Done(image.path, mask, segmentation.fractions())

    def find(self, image: FoundImage, stem: Path) -> Found:
        """What an earlier run left below ``OUT/stem``."""
        base = self.out / stem
        tiff = base.with_name(f"{base.name}.tif")
        mask = tiff if tiff.exists() else base.with_name(f"{base.name}.png")
        origin = read_origin(mask)
        if not origin or origin.source != source_of(image.path):
            return "nothing"
        try:
            if replace(origin, beside=()) != Origin.of(image.path, self.made_with):
                return "other"
        except OSError:  # the image is gone, as reading it will say
            return "other"
        in_windows = PROBABILITY_BANDS in origin.beside
        wanted = self.options.windowed_endings if in_windows else self.options.endings
        files = [mask.with_name(mask.stem + ending) for ending in wanted]
        whole = is_complete(mask) and set(wanted) <= set(origin.beside) and all(file.is_file() for file in files)
        return "complete" if whole else "nothing"

    def without_complete(
        self, images: Sequence[tuple[FoundImage, Path]]
    ) -> tuple[list[tuple[FoundImage, Path]], list[str]]:
        """Leave out the images, with their stems, whose results are complete; with a note on those made otherwise."""
        for folder in {(self.out / stem).parent for _, stem in images}:
            remove_leftovers(folder)
        found = [self.find(image, stem) for image, stem in images]
        left = [item for item, state in zip(images, found, strict=True) if state != "complete"]
        if not (others := found.count("other")):
            return left, []
        return left, [
            f"{others} earlier results below {self.out} are of another model, other settings, or images that have "
            "changed since: they are made again"
        ]

    def _encoders(self, image: FoundImage, found: Segmentation) -> list[tuple[str, Callable[[], bytes]]]:
        """Ending and content of each file; the mask comes first, since it marks the others as results."""
        encoders: list[tuple[str, Callable[[], bytes]]] = []
        if self.options.overlays:
            encoders.append((OVERLAY, lambda: encode_jpeg(_shrunk(found).overlay())))
        if self.options.json:
            encoders.append((JSON, lambda: _describe(image.path, found)))
        if self.options.probabilities:
            encoders.append((_PROBABILITIES, lambda: _encode_probabilities(found)))
        if self.options.attention_maps:
            encoders += _draw_attention(found)
        outlines = [f".{self.options.polygons}"] if self.options.polygons else []
        origin = Origin.of(image.path, self.made_with, (*(ending for ending, _ in encoders), *outlines))
        return [(".png", partial(encode_mask, found.labels, found.label_set, text=origin.text())), *encoders]

    def outline(self, mask: Path, label_set: LabelSet) -> None:
        """Write the outlines of a mask's regions beside it, if they are wanted."""
        for path in self._outlines(mask):
            write_polygons(mask, path, label_set, tolerance=self.options.simplify)

    def _outlines(self, mask: Path) -> list[Path]:
        return [mask.with_name(f"{mask.stem}.{self.options.polygons}")] if self.options.polygons else []

    def make_room(self, source: Path, targets: Sequence[Path]) -> None:
        """Make sure that files may be written, the first of them a mask, and remove earlier ones beside it: killed
        halfway, a new mask must not have an old overlay.

        Raises:
            InputError: one of them is an input.
            OutputExistsError: one of them is not a result of this image.
        """
        self._check(source, targets)
        for path in targets[1:]:
            path.unlink(missing_ok=True)

    def _check(self, source: Path, targets: Sequence[Path]) -> None:
        for target in targets:
            if os.path.realpath(target) in self.inputs:
                raise InputError(f"its result {target} would replace an input; choose another folder for --out")
        made = read_origin(targets[0])
        if self.options.overwrite or (made and made.source == source_of(source)):
            return
        for target in targets:
            if target.exists():
                origin = read_origin(target)
                other = (
                    f"the mask of another image, {origin.source.split(' #')[0]}"
                    if origin
                    else "not a result of this image"
                )
                raise OutputExistsError(
                    f"{target} exists and is {other}; choose another folder for --out, or use --overwrite"
                )


def without_results(found: list[FoundImage], out: Path) -> tuple[list[FoundImage], list[str]]:
    """Leave out results of earlier runs, as there are where OUT is the folder of the images; with a note."""
    home = Path(os.path.realpath(out))  # Path.resolve raises on links in a circle
    below = [home in Path(os.path.realpath(image.path)).parents for image in found]
    kept = [image for image, inside in zip(found, below, strict=True) if not (inside and _is_result(image.path))]
    if not kept:
        raise ImageError(f"only earlier results were found below {out}; name the images themselves")
    if len(kept) == len(found):
        return kept, []
    return kept, [f"{len(found) - len(kept)} earlier results below {out} were not used as input"]


def _is_result(path: Path) -> bool:
    name = _ENDINGS.sub("", path.name)
    return read_origin(path if name == path.name else path.with_name(f"{name}.png")) is not None


def _shrunk(segmentation: Segmentation, columns: int = 1, rows: int = 1) -> Segmentation:
    """Shrink image and labels so that a figure of ``columns`` × ``rows`` of them stays within OVERLAY_SIDE."""
    height, width = segmentation.labels.shape
    shrink = OVERLAY_SIDE / max(columns * width, rows * height)
    return segmentation if shrink >= 1 else segmentation.scaled(shrink)


def _draw_attention(segmentation: Segmentation) -> list[tuple[str, Callable[[], bytes]]]:
    """Ending and content of the figure of all scales, and of the heat map of each."""
    seen = _shrunk(segmentation)
    heat_maps = [
        (f".scale_{scale:g}.jpg", partial(_encode_heat, seen.image, weights))
        for scale, weights in zip(segmentation.scales, _attention(segmentation), strict=True)
    ]
    return [*heat_maps, (_ATTENTION, partial(_encode_figure, segmentation))]


def _encode_figure(segmentation: Segmentation) -> bytes:
    count = 2 + len(segmentation.scales)
    columns = panel_columns(count, *segmentation.labels.shape)
    seen = _shrunk(segmentation, columns, count // columns)
    weights = np.stack([_fitted(weight, seen.image) for weight in _attention(segmentation)])
    return encode_jpeg(attention_figure(seen.image, seen.labels, seen.label_set, weights, seen.scales))


def _encode_heat(image: Pixels, weights: NDArray[np.float32]) -> bytes:
    return encode_jpeg(heat_map(image, _fitted(weights, image)))


def _fitted(weights: NDArray[np.float32], image: Pixels) -> NDArray[np.float32]:
    """Resize weights ``(H, W)`` to an image that may have been shrunk."""
    height, width = image.shape[:2]
    if weights.shape == (height, width):
        return weights
    return np.asarray(cv2.resize(weights, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _attention(segmentation: Segmentation) -> NDArray[np.float32]:
    if segmentation.attention is None:
        raise InputError(
            "this segmentation has no attention: the network does not attend to scales, or ran more than once"
        )
    return segmentation.attention


def _describe(source: Path, segmentation: Segmentation) -> bytes:
    found = areas(segmentation.labels, segmentation.label_set)
    return describe_areas(source, segmentation.labels.shape, found, segmentation.label_set, segmentation.notes)


def describe_areas(
    source: Path, size: tuple[int, ...], pixels: Mapping[str, int], label_set: LabelSet, notes: Sequence[str]
) -> bytes:
    """The content of ``x.json``: size of the image ``(H, W)``, pixels and fraction of each class."""
    height, width = size
    classes = [
        {"name": name, "label": label_set.names.index(name), "pixels": count, "fraction": count / (height * width)}
        for name, count in pixels.items()
    ]
    content = {"image": str(source), "width": width, "height": height, "classes": classes, "notes": notes}
    # A file name need not be UTF-8; what is not becomes \udcXX, which JSON reads as Python does.
    return (dumps(content, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _encode_probabilities(segmentation: Segmentation) -> bytes:
    found = segmentation.class_probabilities
    if found is None:
        raise InputError("class probabilities were not kept; predict with keep_probabilities=True")
    grid = found.grid
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=np.array(PROBABILITIES_FORMAT),
        probabilities=found.values,
        names=np.array(segmentation.label_set.names),
        size=np.array(segmentation.labels.shape),
        stride=np.array([side.stride for side in grid] if isinstance(grid, tuple) else grid.stride),
        offset=np.array([side.offset for side in grid] if isinstance(grid, tuple) else grid.offset),
    )
    return buffer.getvalue()


def failure(image: FoundImage, error: Exception) -> Failed:
    """Describe why an image could not be segmented."""
    reason = str(error).removeprefix(f"{image.path}: ") or type(error).__name__
    of_torch = type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, MemoryError) or of_torch or "can't allocate memory" in reason:
        reason = "not enough memory for the whole image; shrink it, or cut it into tiles"
    return Failed(image.path, reason)
