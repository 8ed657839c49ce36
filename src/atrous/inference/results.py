"""What is written of each image, whole or not at all, and what may be written over."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from json import dumps
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from atrous.data.files.images import FoundImage, ImageError, Pixels
from atrous.errors import InputError
from atrous.files import write_atomically
from atrous.inference.predictor import Segmentation
from atrous.labels import encode_mask
from atrous.viz import areas, attention_figure, encode_jpeg, heat_map, panel_columns

OVERLAY_SIDE = 8192
"""The longest side of an overlay, a heat map or a figure that is written, but for captions and legends; a larger image
is drawn smaller, its mask is not.
"""

_ENDINGS = re.compile(r"\.(overlay|attention|scale_[\d.e+-]+)\.jpg$")  # images beside a mask
_ORIGIN = b"tEXtatrous-source\0"  # the PNG chunk, first after the header, in which a mask tells which image it is of


@dataclass(frozen=True)
class Done:
    """One image that was segmented: where it is, where its mask is, and the share of each class in it."""

    path: Path
    mask: Path
    fractions: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """One image that was not segmented, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Writer:
    """Writes what was found in each image.

    Args:
        out: folder of the results.
        overlays, json, scores, attention_maps: what is written beside the mask.
        overwrite: write over files that are not results of the same image, too.
        inputs: real paths of all images; they are never written over.
    """

    out: Path
    overlays: bool
    json: bool
    scores: bool
    attention_maps: bool
    overwrite: bool
    inputs: frozenset[str]

    def write(self, image: FoundImage, stem: Path, segmentation: Segmentation) -> Done | Failed:
        """Write the results of an image below ``OUT/stem``."""
        base = self.out / stem
        mask = _beside(base, ".png")
        makers: dict[Path, Callable[[], bytes]] = {  # the mask first: with it, the others are known to be ours
            mask: lambda: _sign(encode_mask(segmentation.labels, segmentation.label_set), image.path)
        }
        if self.overlays:
            makers[_beside(base, ".overlay.jpg")] = lambda: encode_jpeg(_shrunk(segmentation).overlay())
        if self.json:
            makers[_beside(base, ".json")] = lambda: _describe(image.path, segmentation)
        if self.scores:
            makers[_beside(base, ".scores.npz")] = lambda: _encode_scores(segmentation)
        if self.attention_maps:
            makers |= {_beside(base, ending): make for ending, make in _draw_attention(segmentation).items()}
        try:
            self._check(image.path, mask, list(makers))
            for path, make in makers.items():
                write_atomically(path, make())
        except (OSError, ValueError) as error:
            return failure(image, error)
        return Done(image.path, mask, segmentation.fractions())

    def _check(self, source: Path, mask: Path, targets: Sequence[Path]) -> None:
        for target in targets:
            if os.path.realpath(target) in self.inputs:
                raise InputError(f"its result {target} would be written over an input; choose another folder for --out")
        if self.overwrite or _origin_of(mask) == _origin(source):
            return
        for target in targets:
            if target.exists():
                origin = _origin_of(target)
                what = (
                    f"is the mask of another image, {origin.split(' #')[0]}"
                    if origin
                    else "is not a result of this image"
                )
                raise InputError(f"{target} exists and {what}; choose another folder for --out, or allow --overwrite")


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _origin(source: Path) -> str:
    path = os.fsencode(os.path.realpath(source))
    return f"{ascii(source.name)[1:-1]} #{blake2b(path, digest_size=8).hexdigest()}"


def _sign(png: bytes, source: Path) -> bytes:
    """Put a text chunk with the origin between the header of a PNG (33 bytes) and its data."""
    chunk = _ORIGIN + _origin(source).encode("ascii")
    return png[:33] + (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + png[33:]


def _origin_of(mask: Path) -> str | None:
    try:
        with mask.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return None
    if not start.startswith(b"\x89PNG") or start[37 : 37 + len(_ORIGIN)] != _ORIGIN:
        return None
    return start[37 + len(_ORIGIN) : 41 + int.from_bytes(start[33:37])].decode("ascii", "replace")


def without_results(found: list[FoundImage], out: Path) -> tuple[list[FoundImage], list[str]]:
    """The images that are not results of an earlier run, as there are when OUT lies in the folder of the images."""
    home = out.resolve()
    kept = [image for image in found if home not in image.path.resolve().parents or not _is_result(image.path)]
    if not kept:
        raise ImageError(f"only earlier results of this command were found below {out}; name the images themselves")
    if len(kept) == len(found):
        return kept, []
    return kept, [f"{len(found) - len(kept)} earlier results below {out} were not taken for input"]


def _is_result(path: Path) -> bool:
    name = _ENDINGS.sub("", path.name)
    return _origin_of(path if name == path.name else path.with_name(f"{name}.png")) is not None


def _shrunk(segmentation: Segmentation, columns: int = 1, rows: int = 1) -> Segmentation:
    """The image and what was found in it, so small that a figure of so many columns and rows is not too large."""
    height, width = segmentation.labels.shape
    shrink = OVERLAY_SIDE / max(columns * width, rows * height)
    if shrink >= 1:
        return segmentation
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    image = np.asarray(cv2.resize(segmentation.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels = np.asarray(cv2.resize(segmentation.labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return replace(segmentation, image=image, labels=labels)


def _draw_attention(segmentation: Segmentation) -> dict[str, Callable[[], bytes]]:
    """The figure of all scales, and the heat of each, by the ending of its file."""
    seen = _shrunk(segmentation)
    heat = {
        f".scale_{scale:g}.jpg": partial(_encode_heat, seen.image, weights)
        for scale, weights in zip(segmentation.scales, _attention(segmentation), strict=True)
    }
    return {".attention.jpg": partial(_encode_figure, segmentation), **heat}


def _encode_figure(segmentation: Segmentation) -> bytes:
    count = 2 + len(segmentation.scales)
    columns = panel_columns(count, *segmentation.labels.shape)
    seen = _shrunk(segmentation, columns, count // columns)
    weights = np.stack([_fitted(weight, seen.image) for weight in _attention(segmentation)])
    return encode_jpeg(attention_figure(seen.image, seen.labels, seen.label_set, weights, seen.scales))


def _encode_heat(image: Pixels, weights: NDArray[np.float32]) -> bytes:
    return encode_jpeg(heat_map(image, _fitted(weights, image)))


def _fitted(weights: NDArray[np.float32], image: Pixels) -> NDArray[np.float32]:
    """Weights ``(H, W)`` at the size of an image that may have been made smaller."""
    height, width = image.shape[:2]
    if weights.shape == (height, width):
        return weights
    return np.asarray(cv2.resize(weights, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _attention(segmentation: Segmentation) -> NDArray[np.float32]:
    if segmentation.attention is None:
        raise InputError("the network attended to no scales")
    return segmentation.attention


def _describe(source: Path, segmentation: Segmentation) -> bytes:
    height, width = segmentation.labels.shape
    names = segmentation.label_set.names
    classes = [
        {"name": name, "label": names.index(name), "pixels": pixels, "share": pixels / (height * width)}
        for name, pixels in areas(segmentation.labels, segmentation.label_set).items()
    ]
    content = {"image": str(source), "width": width, "height": height, "classes": classes, "notes": segmentation.notes}
    return (dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _encode_scores(segmentation: Segmentation) -> bytes:
    scores = segmentation.scores
    if scores is None:
        raise InputError("the scores were not kept; segment with keep_scores=True")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        probabilities=scores.probabilities,
        names=np.array(segmentation.label_set.names),
        size=np.array(segmentation.labels.shape),
        stride=np.array(scores.grid.stride),
        offset=np.array(scores.grid.offset),
    )
    return buffer.getvalue()


def failure(image: FoundImage, error: Exception) -> Failed:
    """An image that could not be segmented, and why."""
    reason = str(error).removeprefix(f"{image.path}: ") or type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in reason:
        reason = "not enough memory to segment it whole; make it smaller or cut it into pieces"
    return Failed(image.path, reason)
